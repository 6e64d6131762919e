"""What `fleet generate` writes runs as it is: images built from it by a real Engine, compose files brought up.

A broker with TLS, then a control plane and two hosts from generated files alone, each a compose project of its own, as
on machines of their own. The images are built without a package index, as the Dockerfile says.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from fleet.generate import generate
from tests.services import base_images
from tests.services.availability import missing
from tests.services.compose import Compose
from tests.services.private_engine import PrivateEngine
from tests.services.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600), pytest.mark.xdist_group("wheelhouse")]

BROKER = "broker.example"
#: The same broker, by the only name that one of the hosts can reach it by.
MOVED = "moved.example"
PASSWORD = "of-control-" + "x" * 32
#: The user of the control plane's image.
_CONTROL_UID = 901


@dataclass
class Machines:
    """One Engine, and what was generated for the machines that are played on it."""

    directory: Path
    engine: PrivateEngine
    client: docker.DockerClient
    broker: Container
    wheels: Path
    projects: dict[str, Compose] = field(default_factory=dict)

    def machine(
        self, name: str, *, secrets: dict[str, str], owner: int = 0, broker: str = BROKER, **wishes: Any
    ) -> None:
        """Generate a compose file, put the secrets where it says, and bring it up."""
        output = self.directory / name
        written = generate("compose", output_dir=output, host_id=name, own_ca=True, **wishes)
        assert set(written) >= {"compose.yaml", "Dockerfile", "requirements.txt"}
        for wheel in self.wheels.iterdir():
            shutil.copy2(wheel, output / "wheels")
        (output / "secrets").mkdir()
        given = {**secrets, "broker_ca.pem": (self.directory / "broker" / "ca.pem").read_text()}
        for secret, text in given.items():
            path = output / "secrets" / secret
            path.write_text(text)
            path.chmod(0o400)
            shutil.chown(path, owner)
        compose = self.projects[name] = Compose(
            directory=output, engine=self.engine, project=name, settings={"PIP_NO_INDEX": "1"}
        )
        compose.check("up", "--detach", "--build")
        self.client.networks.get(f"{name}_default").connect(self.broker, aliases=[broker])

    def fleet(self, *words: str) -> Any:
        """Run a command where the control plane is, and return its JSON."""
        done = self.projects["office"].execute("control", "fleet", *words, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def token(self, host: str) -> str:
        done = self.projects["office"].execute("control", "fleet", "token", "create", "--host-id", host, "-o", "id")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def container(self, machine: str) -> Container:
        [found] = self.client.containers.list(
            ignore_removed=True, filters={"label": f"com.docker.compose.project={machine}"}
        )
        return found

    def presence(self, host: str) -> str:
        """Return what `fleet host list` shows of a host; nothing where it is not enrolled yet."""
        return next((each["presence"] for each in self.fleet("host", "list") if each["id"] == host), "")

    def keys(self, host: str) -> set[str]:
        """Return the keys by which a host says that it is there and what it runs."""
        login = ["--user", "test-admin", "--pass", PASSWORD, "--no-auth-warning"]
        words = ["valkey-cli", "--tls", "--cacert", "/data/ca.pem", *login, "KEYS", "*"]
        done = self.broker.exec_run(words)
        assert done.exit_code == 0, done.output
        found = set(done.output.decode().split())
        assert f"fleet:h:{host}:epoch" in found
        return found & {f"fleet:presence:{host}", f"fleet:inventory:{host}"}

    def await_healthy(self, machine: str) -> None:
        """Wait until the generated health check is content."""
        container = self.container(machine)
        events = self.client.events(decode=True, filters={"container": container.id, "type": "container"})
        try:
            container.reload()  # after the events are open: no change falls between the two
            while container.attrs["State"]["Health"]["Status"] != "healthy":
                event = next(events)
                assert event["Action"] not in {"die", "health_status: unhealthy"}, container.logs(tail=40).decode()
                container.reload()
        finally:
            events.close()


@pytest.fixture(scope="module")
def machines(wheelhouse: Path) -> Iterator[Machines]:
    if problem := Compose.missing():
        missing(problem)
    # A short path: the Engine's sockets lie below it, and their names may have 107 bytes.
    with TemporaryDirectory(prefix="fleet-") as name:
        directory = Path(name)
        engine = PrivateEngine(directory / "engine")
        engine.start()
        try:
            with closing(engine.client()) as client:
                base_images.load_python(client)
                base_images.load_valkey(client)
                broker = _broker(client, directory / "broker")
                started = Machines(directory, engine, client, broker, _wheels(directory / "pinned", wheelhouse))
                started.machine(
                    "office",
                    role="control",
                    registry_url=f"rediss://{BROKER}:6379/0",
                    secrets={"broker_password": PASSWORD, "database_url": "sqlite:////var/lib/fleet/fleet.db"},
                    owner=_CONTROL_UID,
                )
                started.await_healthy("office")
                made = started.projects["office"].execute(
                    "control", "fleet", "principal", "create", "operator", "--level", "autonomous"
                )
                assert made.returncode == 0, made.stderr
                yield started
        finally:
            engine.stop()


def _broker(client: docker.DockerClient, directory: Path) -> Container:
    """Start a broker that knows the control plane's user, as README says to prepare one."""
    directory.mkdir()
    _run("-m", "fleet.certificates", str(directory), BROKER, MOVED)
    (directory / "password").write_text(PASSWORD)
    rules = _run("-m", "fleet", "broker", "rules", "default")
    rules += f"user test-admin on >{PASSWORD} ~* &* +@all\n"
    rules += _run(
        *("-m", "fleet", "broker", "rules", "control"),
        *("--password-file", str(directory / "password"), "--redis-version", "7.0"),
    )
    (directory / "users.acl").write_text(rules)
    words = {
        "--port": "0",
        "--tls-port": "6379",
        "--tls-cert-file": "/data/server.pem",
        "--tls-key-file": "/data/server.key",
        "--tls-auth-clients": "no",
        "--aclfile": "/data/users.acl",
        "--appendonly": "yes",
        "--maxmemory-policy": "noeviction",
        "--bind": "*",
    }
    return client.containers.run(
        base_images.VALKEY,
        ["valkey-server", *(word for pair in words.items() for word in pair)],
        name="broker",
        detach=True,
        volumes={str(directory): {"bind": "/data", "mode": "rw"}},
    )


def _wheels(directory: Path, wheelhouse: Path) -> Path:
    """Get what requirements.txt names, as the Dockerfile says to: from what was downloaded for all tests,
    or, where other versions are installed here than that has, from the index."""
    pins = generate("requirements", role="host", output_dir=directory)["requirements.txt"]
    wheels = directory / "downloaded"
    download = ["-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps", "--only-binary=:all:"]
    download += ["--dest", str(wheels), "--find-links", str(wheelhouse), "--requirement", str(pins)]
    offline = subprocess.run([sys.executable, *download, "--no-index"], capture_output=True, check=False)
    if offline.returncode:
        _run(*download)
    return wheels


def _run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def edge_1(machines: Machines) -> Container:
    """A host that reaches the broker where its compose file says, which is not where its token says."""
    machines.machine(
        "edge-1",
        role="host",
        registry_url=f"rediss://{MOVED}:6379/0",
        broker=MOVED,
        secrets={"token": machines.token("edge-1")},
    )
    machines.await_healthy("edge-1")
    return machines.container("edge-1")


def test_a_host_enrolls_turns_ready_and_does_what_is_pushed(machines: Machines, edge_1: Container) -> None:
    [run] = machines.fleet("push-task", "fleet.containers.list", "--host", "edge-1", "--wait")["runs"]

    assert run["state"] == "succeeded"
    assert edge_1.name in {each["name"] for each in run["reply"]["containers"]}
    assert machines.presence("edge-1") == "online"
    known = {"fleet:presence:edge-1", "fleet:inventory:edge-1"}
    until(lambda: machines.keys("edge-1") == known, "it says that it is there, and what it runs")


def test_a_host_without_registry_does_what_is_queued_for_it(machines: Machines) -> None:
    machines.machine("edge-2", role="host", registry=False, secrets={"token": machines.token("edge-2")})
    until(lambda: machines.presence("edge-2") == "unlisted", "its registration is on record", timeout=60)

    push = ("push-task", "fleet.containers.list", "--host", "edge-2")
    refused = machines.projects["office"].execute("control", "fleet", *push)
    assert refused.returncode == 5
    assert "host_not_connected" in refused.stderr
    [run] = machines.fleet(*push, "--offline", "queue", "--wait")["runs"]
    assert run["state"] == "succeeded"
    machines.await_healthy("edge-2")
    assert machines.keys("edge-2") == set()


def test_images_are_complete_and_without_secrets_and_only_a_hosts_runs_as_root(
    machines: Machines, edge_1: Container
) -> None:
    for image, user in (("fleet-control", "fleet"), (edge_1.attrs["Config"]["Image"], "root")):
        made = machines.client.images.get(image).attrs["Config"]
        assert made["User"] == user
        assert made["Healthcheck"]["Test"][:3] == ["CMD", "fleet", "health"]
        assert b"No broken requirements" in machines.client.containers.run(image, ["pip", "check"], remove=True)
        search = ["grep", "-r", "-l", "-F", PASSWORD, "/", "--exclude-dir=proc", "--exclude-dir=sys"]
        with pytest.raises(docker.errors.ContainerError) as nothing:
            machines.client.containers.run(image, search, user="root", remove=True)
        assert (nothing.value.exit_status, nothing.value.stderr) == (1, b"")


def test_a_host_that_is_started_again_needs_no_token(machines: Machines, edge_1: Container) -> None:
    compose = machines.projects["edge-1"]
    compose.check("stop")
    edge_1.reload()
    assert edge_1.attrs["State"]["ExitCode"] == 0
    (machines.directory / "edge-1" / "secrets" / "token").write_text("")

    compose.check("start")
    machines.await_healthy("edge-1")
