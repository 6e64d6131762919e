"""Units that `fleet generate` writes: what systemd would run, with the environment that it would give, ends ready.

There is no systemd to run them here, so this module does for the process what the unit asks for: the program of
ExecStart=, Environment=, the credentials directory, and the state directory.
"""

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleet import errors, names, tokens
from fleet.generate import generate
from tests.services import forks
from tests.services.private_engine import PrivateEngine
from tests.services.system import Part, System
from tests.services.waiting import until

#: The database has no part in this.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


#: Below the system's directory, where the unit's would be /var/lib/fleet.
STATE = "state-of-unit"


@dataclass
class Service(Part):
    """What runs by a unit."""

    environment: dict[str, str]

    def ready(self) -> bool:
        """Ask as an admin of that machine would, with the unit's environment, whether it is ready."""
        assert self.process.poll() is None, self.log.read_text()
        part = "control" if "FLEET_DATABASE_URL_FILE" in self.environment else "worker"
        return forks.run(["health", part, "--ready"], env=self.environment).returncode == 0


@dataclass(frozen=True)
class Unit:
    """A unit file, as far as a process depends on it."""

    text: str

    def settings(self, name: str) -> list[str]:
        """Return the values of a setting, unquoted, with specifiers as they are."""
        found = re.findall(rf"^{name}=(.*)$", self.text, re.MULTILINE)
        return [" ".join(shlex.split(value)) for value in found]

    def run(self, system: System, *, secrets: dict[str, str], **more: str) -> Service:
        """Start the process as systemd would, with secrets by the names of their credentials."""
        given = system.directory / f"credentials-{len(system.parts)}"
        given.mkdir()
        wanted = dict(value.split(":", 1) for value in self.settings("LoadCredential"))
        assert secrets.keys() <= wanted.keys()
        defaults = dict(value.split(":", 1) for value in self.settings("SetCredential"))
        for name in wanted:
            (given / name).write_text(secrets[name] if name in secrets else defaults[name].replace("\\n", "\n"))
        environment = dict(value.replace("%d", str(given)).split("=", 1) for value in self.settings("Environment"))
        assert environment["FLEET_STATE_DIR"] == f"/var/lib/{self.settings('StateDirectory')[0]}"
        environment["FLEET_STATE_DIR"] = str(system.directory / STATE)
        [command] = self.settings("ExecStart")
        inherited = {name: value for name, value in system.environment().items() if not name.startswith("FLEET_")}
        variables = {**inherited, **environment, **more}
        log = system.directory / f"unit-{len(system.parts)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                shlex.split(command),
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        service = Service(process, log, variables)
        system.parts.append(service)
        return service


def unit(directory: Path, **wishes: object) -> Unit:
    [path] = generate("systemd", output_dir=directory, host_id="edge-1", **wishes).values()  # type: ignore[arg-type]
    return Unit(path.read_text())


@pytest.fixture
def office(system: System) -> System:
    """A fleet whose control plane runs."""
    system.start_control()
    return system


@pytest.fixture
def docker(docker_engine: PrivateEngine) -> dict[str, str]:
    """What says where the Engine is, which on a machine with the unit is at the usual place."""
    return {"DOCKER_HOST": docker_engine.url}


@pytest.mark.docker
def test_a_host_enrolls_turns_ready_and_starts_again_without_its_token(
    office: System, tmp_path: Path, docker: dict[str, str]
) -> None:
    worker = unit(tmp_path / "unit", role="host", registry_url=office.broker.url)

    first = worker.run(office, secrets={"token": office.token(host_id="edge-1")}, **docker)
    until(first.ready, "the host is ready", timeout=60)
    assert office.heartbeat("edge-1")
    assert office.fleet.push("fleet.host.ping", on="edge-1").results[0].get(timeout=30)["host"] == "edge-1"
    assert first.stop() == 0

    again = worker.run(office, secrets={}, **docker)
    until(again.ready, "the host is ready again", timeout=60)


@pytest.mark.docker
def test_a_host_without_registry_takes_what_is_queued_and_says_nothing_of_itself(
    office: System, tmp_path: Path, docker: dict[str, str]
) -> None:
    worker = unit(tmp_path / "unit", role="host", registry=False)

    started = worker.run(office, secrets={"token": office.token(host_id="edge-1")}, **docker)
    until(started.ready, "the host is ready", timeout=60)
    until(lambda: office.events("host.registered"), "its registration is on record", timeout=60)
    with pytest.raises(errors.HostNotConnected):
        office.fleet.push("fleet.host.ping", on="edge-1")
    pushed = office.fleet.push("fleet.host.ping", on="edge-1", offline="queue")
    assert pushed.results[0].get(timeout=30)["host"] == "edge-1"
    assert list(office.redis.scan_iter("fleet:presence:*")) + list(office.redis.scan_iter("fleet:inventory:*")) == []


@pytest.mark.docker
def test_a_host_goes_where_its_unit_says_whatever_its_token_said(
    office: System, tmp_path: Path, docker: dict[str, str]
) -> None:
    """The broker has moved since the token was made: nobody is at the address in it any more."""
    moved = replace(tokens.parse(office.token(host_id="edge-1")), broker_url="redis://127.0.0.1:1/0")
    worker = unit(tmp_path / "unit", role="host", registry_url=office.broker.url)

    started = worker.run(office, secrets={"token": moved.text()}, **docker)
    until(started.ready, "the host is ready", timeout=60)


def test_the_control_plane_takes_the_lease_with_a_password_of_its_own(system: System, tmp_path: Path) -> None:
    system.redis.execute_command("ACL", "SETUSER", "control", "reset", "on", ">of-control", "~*", "&*", "+@all")
    control = unit(tmp_path / "unit", role="control", registry_url=system.broker.url)
    keys = system.settings.signing_keys_path
    (system.directory / STATE).mkdir()
    shutil.copy2(keys, system.directory / STATE / keys.name)  # the fleet is there already
    secrets = {"broker_password": "of-control\n", "database_url": system.database_url}

    started = control.run(system, secrets=secrets)

    until(started.ready, "the control worker is ready", timeout=60)
    assert system.redis.exists(names.CONTROL_LEASE)
    users = {client["user"] for client in system.redis.client_list() if "control" in client["name"]}
    assert users == {"control"}
    assert started.stop() == 0
