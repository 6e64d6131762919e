"""compose.yaml on a real Engine: one command brings everything up, and it does what the README says."""

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import docker
import pytest

from tests.services import base_images
from tests.services.compose import Compose, checkout
from tests.services.database import missing
from tests.services.private_engine import PrivateEngine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300), pytest.mark.xdist_group("wheelhouse")]

HOST = "edge-1"
#: Run to their end at each `up`; the others go on.
ONE_SHOT = {"secrets", "token"}
RUNNING = {"broker", "database", "control", "flower", "host"}


@dataclass(frozen=True)
class Stack:
    engine: PrivateEngine
    client: docker.DockerClient
    compose: Compose

    def up(self) -> None:
        self.compose.check("up", "--detach")
        for service in sorted(RUNNING):
            self.await_healthy(service)

    def container(self, service: str) -> Any:
        (found,) = self.client.containers.list(all=True, filters={"label": f"com.docker.compose.service={service}"})
        return found

    def await_healthy(self, service: str) -> None:
        """Wait for the Engine to say that the service's container is healthy."""
        container = self.container(service)
        events = self.client.events(decode=True, filters={"container": container.id, "type": "container"})
        try:
            # Looked at after the events are open: no change falls between the two.
            container.reload()
            while container.attrs["State"]["Health"]["Status"] != "healthy":
                event = next(events)
                assert event["Action"] not in {"die", "health_status: unhealthy"}, container.logs(tail=40).decode()
                container.reload()
        finally:
            events.close()

    def fleet(self, *argv: str) -> Any:
        """Run a `fleet` command in the control worker's container and return its JSON."""
        done = self.compose.execute("control", "fleet", *argv, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def flower(self, path: str, *, password: str | None) -> int:
        """Return the HTTP status of Flower's published port, as this machine would see it."""
        credentials = base64.b64encode(f"fleet:{password}".encode()).decode()
        program = (
            "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 5555, timeout=10);"
            "c.request('GET', sys.argv[1], headers={'Authorization': 'Basic ' + sys.argv[2]} if sys.argv[2] else {});"
            "print(c.getresponse().status)"
        )
        done = self.engine.inside([sys.executable, "-c", program, path, credentials if password else ""])
        assert done.returncode == 0, done.stderr
        return int(done.stdout)


@pytest.fixture(scope="module")
def stack(wheelhouse: Path) -> Iterator[Stack]:
    if problem := Compose.missing():
        missing(problem)
    # A short path: the Engine's sockets lie below it, and their names may have 107 bytes.
    with TemporaryDirectory(prefix="fleet-") as directory:
        engine = PrivateEngine(Path(directory) / "engine")
        engine.start()
        try:
            with closing(engine.client()) as client:
                base_images.load_all(client)
                checkout(Path(directory) / "checkout", wheelhouse=wheelhouse)
                compose = Compose(
                    directory=Path(directory) / "checkout",
                    engine=engine,
                    project="fleet",
                    settings={"FLEET_HOST_ID": HOST},
                )
                # One image for all services: the others find it.
                compose.check("build", "secrets")
                stack = Stack(engine, client, compose)
                stack.up()
                yield stack
                compose.check("down", "--volumes")
                assert client.containers.list(all=True) == []
                assert client.volumes.list() == []
        finally:
            engine.stop()


def test_every_service_runs_and_the_one_shot_ones_have_ended_well(stack: Stack) -> None:
    states = {service: stack.container(service).attrs["State"] for service in RUNNING | ONE_SHOT}

    assert {service for service, state in states.items() if state["Running"]} == RUNNING
    assert {service: states[service]["ExitCode"] for service in ONE_SHOT} == dict.fromkeys(ONE_SHOT, 0)


def test_the_host_has_enrolled_itself_and_is_online(stack: Stack) -> None:
    (host,) = stack.fleet("host", "list")

    assert (host["id"], host["presence"]) == (HOST, "online")


def test_a_pushed_task_looks_at_the_engine_and_its_life_is_audited_in_postgresql(stack: Stack) -> None:
    pushed = stack.fleet("push-task", "fleet.containers.list", "--host", HOST, "--wait")
    (run,) = pushed["runs"]
    assert run["state"] == "succeeded"
    assert {container["name"].split("_")[1] for container in run["reply"]["containers"]} >= RUNNING

    query = f"SELECT event FROM audit_event WHERE run_id = '{run['id']}' ORDER BY id"
    psql = stack.compose.execute("database", "psql", "-U", "fleet", "-d", "fleet", "-At", "-c", query)
    assert psql.returncode == 0, psql.stderr
    assert psql.stdout.split() == ["run.queued", "run.accepted", "run.started", "run.succeeded"]


def test_flower_answers_nobody_without_its_password(stack: Stack) -> None:
    password = stack.compose.execute("flower", "cat", "flower.password").stdout.strip()

    assert stack.flower("/workers", password=None) == 401
    assert stack.flower("/workers", password="guess") == 401
    assert stack.flower("/workers", password=password) == 200


def test_the_host_and_flower_know_no_password_of_the_database(stack: Stack) -> None:
    password = stack.compose.execute("database", "cat", "/var/lib/postgresql/data/password").stdout.strip()
    assert len(password) >= 32

    for service in ("host", "flower"):
        found = stack.compose.execute(service, "grep", "-r", "-l", "-F", password, "/var/lib/fleet", "/proc/1/environ")
        assert (found.returncode, found.stdout) == (1, "")


def test_the_broker_speaks_tls_only_and_the_host_knows_its_ca_from_the_token(stack: Stack) -> None:
    plain = stack.compose.execute("broker", "valkey-cli", "ping")
    assert "NOAUTH" not in plain.stdout + plain.stderr
    for words in (["--cacert", "/etc/passwd"], ["--sni", "broker"]):  # no CA of ours, and the system's
        assert "NOAUTH" not in stack.compose.execute("broker", "valkey-cli", "--tls", *words, "ping").stdout
    trusted = stack.compose.execute("broker", "valkey-cli", "--tls", "--cacert", "/data/tls/ca.pem", "ping")
    assert "NOAUTH" in trusted.stdout + trusted.stderr
    credential = json.loads(stack.compose.execute("host", "cat", f"hosts/{HOST}/credential.json").stdout)
    assert credential["broker_url"].startswith("rediss://")
    assert credential["broker_ca"] == stack.compose.execute("control", "cat", "broker-ca.pem").stdout


def test_the_brokers_key_is_the_brokers_alone_and_nobody_kept_the_cas(stack: Stack) -> None:
    keys = {
        service: stack.compose.execute(service, "grep", "-r", "-l", "PRIVATE KEY", directory).stdout.split()
        for service, directory in {
            "broker": "/data",
            "control": "/var/lib/fleet",
            "flower": "/var/lib/fleet",
            "host": "/var/lib/fleet",
        }.items()
    }
    assert keys == {"broker": ["/data/tls/server.key"], "control": [], "flower": [], "host": []}
    assert stack.compose.execute("broker", "stat", "-c", "%a %U", "/data/tls/server.key").stdout == "600 valkey\n"


def test_a_second_up_finds_the_host_enrolled_and_makes_no_token(stack: Stack) -> None:
    tokens = stack.fleet("token", "list")

    stack.compose.check("down")
    assert stack.client.containers.list(all=True) == []
    assert stack.client.networks.list(names=["fleet_default"]) == []
    stack.up()

    assert [token["id"] for token in stack.fleet("token", "list")] == [token["id"] for token in tokens]
    assert stack.fleet("host", "list")[0]["presence"] == "online"
    (run,) = stack.fleet("push-task", "fleet.host.ping", "--host", HOST, "--wait")["runs"]
    assert run["state"] == "succeeded"
