"""config/docker/make-token, which every `up` of compose.yaml runs: what it makes, renews, and leaves as it is."""

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from fleet import bearer, clock, db
from fleet.bearer import Bearer
from fleet.models import BearerToken, Principal
from tests.services.forked_program import program
from tests.services.system import ROOT, System

pytestmark = pytest.mark.parametrize("backend", ["sqlite"])

SCRIPT = ROOT / "config" / "docker" / "make-token"
NAME = "compose"
YEAR = timedelta(days=365)


class Container:
    """What the script finds in its container: its volumes, and `fleet` and `chown` in the path."""

    def __init__(self, system: System, programs: Path) -> None:
        self.system = system
        self.volumes, self._programs = system.directory / "volumes", programs
        (self.volumes / "host").mkdir(parents=True)
        # The image has a user `fleet`, and the script is root there.
        (self._programs / "chown").write_text("#!/bin/sh\n")
        (self._programs / "chown").chmod(0o755)

    def up(self) -> None:
        environment = self.system.environment(FLEET_PRINCIPAL=NAME, FLEET_HOST_ID="h1", VOLUMES=str(self.volumes))
        environment["PATH"] = f"{self._programs}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(["sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @property
    def principal(self) -> Path:
        return self.system.settings.principal_path(NAME)

    @property
    def token(self) -> str:
        return (self.system.directory / "api.token").read_text().strip()

    def opened(self, text: str) -> Bearer:
        """Return who shows a token; raises `bearer.Ended` as the API would answer `token_ended`."""
        url = self.system.broker.url
        with self.system.control_plane() as (session, _, ring):
            return bearer.read(session, ring, text, broker_url=url)

    def left(self, *, days: float) -> None:
        """Let principal and token end in so many days."""
        ends = clock.now() + timedelta(days=days)
        with db.session(self.system.engine) as session:
            for table in (Principal, BearerToken):
                session.execute(update(table).values(expires_at=ends))

    def pushes(self) -> bool:
        """Say whether `fleet` in the control worker's container may push."""
        words = ("push-task", "fleet.host.ping", "--host", "h1", "--offline", "queue")
        return self.system.command(*words, FLEET_PRINCIPAL=NAME).returncode == 0


@pytest.fixture
def container(system: System) -> Iterator[Container]:
    """Its first start: the fleet's tables and keys are there."""
    programs = system.directory / "bin"
    programs.mkdir()
    with program(programs):
        made = Container(system, programs)
        made.up()
        yield made


def made_files(container: Container) -> tuple[bytes, str]:
    return container.principal.read_bytes(), container.token


def test_all_is_made_once_and_renewed_before_its_end_and_former_tokens_have_their_time(container: Container) -> None:
    opened = container.opened(container.token)
    assert opened.principal == NAME
    assert opened.expires_at - clock.now() > YEAR - timedelta(hours=1)
    assert (container.volumes / "host" / "token").read_text().startswith("fleet.")

    container.left(days=31)
    made = made_files(container)
    container.up()
    assert made_files(container) == made

    container.system.start_control()
    container.system.enroll("h1")
    container.left(days=29)
    container.up()
    file, former = made
    assert container.principal.read_bytes() != file
    assert container.opened(container.token).expires_at - clock.now() > YEAR - timedelta(hours=1)
    assert container.opened(former).expires_at - clock.now() < timedelta(days=30)
    assert container.pushes()


def test_what_has_ended_or_was_left_half_renewed_is_made_and_what_was_revoked_stays_so(container: Container) -> None:
    container.left(days=-400)
    with pytest.raises(bearer.Ended):
        container.opened(container.token)
    container.up()
    assert container.opened(container.token).expires_at - clock.now() > YEAR - timedelta(hours=1)

    container.left(days=29)
    former = container.token
    rotated = container.system.command("principal", "rotate", NAME)  # as far as a start came that was cut short
    assert rotated.returncode == 0
    container.up()
    assert container.token != former
    assert container.opened(container.token).principal == NAME

    before = made_files(container)
    token_id = container.token.split(".")[1]
    assert container.system.command("principal", "revoke-token", token_id).returncode == 0
    assert container.system.command("principal", "revoke", NAME).returncode == 0
    container.left(days=1)
    container.up()
    assert made_files(container) == before
