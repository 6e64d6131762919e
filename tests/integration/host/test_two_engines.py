"""A container's whole life, on two hosts with an Engine each: what is one host's never turns up on the other."""

import json
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import Cli
from tests.services.docker import IMAGE, busybox_root
from tests.services.docker import left as docker_objects
from tests.services.finding import holding
from tests.services.private_engine import PrivateEngine
from tests.services.system import System
from tests.services.waiting import until

pytestmark = [pytest.mark.docker]

VALUE = "two-hosts-7d1e"
SCRIPT = 'echo "$WHO"; cat /run/secrets/key; echo; while true; do sleep 1; done'


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def engines(docker_engine: PrivateEngine) -> Iterator[dict[str, PrivateEngine]]:
    """The Engine of each host."""
    other = PrivateEngine(Path("/tmp") / f"fleet-engine-{uuid.uuid4().hex[:6]}")
    with ExitStack() as running:
        running.callback(other.stop)
        other.start()
        with closing(other.client()) as client:
            client.api.import_image_from_data(busybox_root(), repository=IMAGE.partition(":")[0], tag="latest")
        yield {"edge-1": docker_engine, "edge-2": other}


@pytest.fixture
def cli(system: System, engines: dict[str, PrivateEngine], on_tmpfs: Path) -> Cli:
    system.start_control()
    for host, engine in engines.items():
        system.enroll(host, labels={"env": "prod"})
        system.start_worker(host, FLEET_DOCKER_URL=engine.url, FLEET_SECRETS_DIR=str(on_tmpfs))
    return Cli({name: value for name, value in system.environment().items() if name.startswith("FLEET_")})


def left(engine: PrivateEngine) -> tuple[list[str], list[str], list[str]]:
    """Return the containers, the volumes, and the networks of somebody's own."""
    with closing(engine.client()) as client:
        return *docker_objects(client), sorted(
            str(each.name) for each in client.networks.list(filters={"type": "custom"})
        )


def listed(cli: Cli, *words: str) -> set[tuple[str, str, str]]:
    return {(each["host"], each["name"], each["state"]) for each in cli("ps", *words, "--json").json["containers"]}


def test_a_secret_is_run_with_on_two_hosts_followed_listed_and_removed(
    system: System, engines: dict[str, PrivateEngine], cli: Cli, on_tmpfs: Path
) -> None:
    assert cli("secret", "create", "key", stdin=VALUE).code == 0
    started = cli(
        *("run", "-l", "env=prod", "-d", "--name", "api", "--secret", "key", "--stop-signal", "KILL", "-e", "WHO=two"),
        *("--json", IMAGE, "sh", "-c", SCRIPT),
    )
    assert started.code == 0, started.err
    assert {(each["host"], each["container"]["name"]) for each in started.json} == {(host, "api") for host in engines}
    until(lambda: listed(cli, "--managed") == {(host, "api", "running") for host in engines}, "both run")

    with closing(Followed(cli, "container", "logs", "api", "-l", "env=prod", "-f")) as followed:
        wanted = {f"{host} | {line}" for host in engines for line in ("two", VALUE)}
        until(lambda: wanted <= set(followed.lines), "what both say")
        followed.process.send_signal(signal.SIGINT)
        assert followed.process.wait(30) == 130
    until(lambda: listed(cli, "--managed") == {(host, "api", "running") for host in engines}, "both run on")

    with closing(Followed(cli, "container", "logs", "api", "-l", "env=prod", "-f")) as followed:
        until(lambda: wanted <= set(followed.lines), "what both say")
        removed = cli("container", "rm", "api", "-l", "env=prod", "--force")
        assert removed.code == 0, removed.err
        followed.process.wait(30)  # by the containers' end
    until(lambda: not listed(cli), "neither is listed")
    for engine in engines.values():
        assert left(engine) == ([], [], [])
    assert [path for path in on_tmpfs.rglob("*") if path.is_file()] == []
    assert cli("secret", "rm", "key").code == 0


class Followed:
    """`fleet` in a process of its own, and the lines that it has printed."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(cli.command(*words), env=cli.environ(), stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.removesuffix("\n"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(30)
        if self.process.stdout is not None:
            self.process.stdout.close()


def test_a_container_lives_on_two_hosts_and_nothing_of_it_is_left(
    system: System, engines: dict[str, PrivateEngine], cli: Cli, on_tmpfs: Path, tmp_path: Path
) -> None:
    value = tmp_path / "value"
    value.write_text(VALUE)
    assert cli("secret", "create", "key", "--from-file", str(value)).code == 0
    value.unlink()
    made = cli(
        *("container", "create", "-l", "env=prod", "--name", "api", "--secret", "key", "-e", "WHO=two", "--json"),
        *("-v", "data:/data", "--stop-signal", "KILL", IMAGE, "sh", "-c", SCRIPT),
    )
    assert made.code == 0, made.error
    ids: dict[str, Any] = {run["host"]: run["reply"]["container"]["docker_id"] for run in made.json["runs"]}
    assert len(set(ids.values())) == 2
    until(lambda: listed(cli) == {(host, "api", "created") for host in ids}, "both are listed")

    assert cli("container", "start", "api", "-l", "env=prod").code == 0
    until(lambda: listed(cli, "--managed") == {(host, "api", "running") for host in ids}, "both run")
    said = cli("container", "logs", "api", "--all", "-o", "jsonl").out.splitlines()
    lines = {(each["host"], each["line"]) for each in map(json.loads, said)}
    assert lines == {(host, line) for host in ids for line in ("two", VALUE)}

    refused = cli("container", "stop", ids["edge-2"], "--host", "edge-1")
    assert (refused.code, "No such container" in refused.out) == (1, True)
    assert cli("container", "stop", ids["edge-1"][:12], "--host", "edge-1").code == 0
    until(lambda: listed(cli) == {("edge-1", "api", "exited"), ("edge-2", "api", "running")}, "one stands, one runs on")
    again = cli("container", "create", "--host", "edge-2", "--name", "api", IMAGE, "sleep", "1")
    assert again.code == 1
    assert "--replace" in again.out

    removed = cli("container", "rm", "api", "--all", "--force", "--volumes")
    assert removed.code == 0, removed.error
    until(lambda: not listed(cli), "neither is listed")
    for engine in engines.values():
        assert left(engine) == ([], [], [])
    assert [path for path in on_tmpfs.rglob("*") if path.is_file()] == []
    for directory in (system.directory, *(engine.directory for engine in engines.values())):
        assert holding(directory, VALUE) == []
