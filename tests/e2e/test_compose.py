"""compose.yaml on a real Engine: one command brings everything up, and it does what the README says."""

import json
import re
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
from tests.services.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600), pytest.mark.xdist_group("wheelhouse")]

HOST = "edge-1"
#: Run to their end at each `up`; the others go on.
ONE_SHOT = {"secrets", "token"}
RUNNING = {"broker", "database", "control", "api", "flower", "host"}


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
        (found,) = self.client.containers.list(
            all=True, ignore_removed=True, filters={"label": f"com.docker.compose.service={service}"}
        )
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

    def curl(self, address: str, *words: str) -> tuple[int, str]:
        """Ask a published port, as this machine would; return the HTTP status and the body."""
        done = self.engine.inside(
            ["curl", "--silent", "--max-time", "30", "--write-out", "\n%{http_code}", *words, address]
        )
        assert done.returncode == 0, f"{address}: {done.stderr}"
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def flower(self, path: str, *, password: str | None) -> int:
        """Return the HTTP status of Flower's published port."""
        login = ("--user", f"fleet:{password}") if password else ()
        return self.curl(f"http://127.0.0.1:5555{path}", *login)[0]


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
                assert client.containers.list(all=True, ignore_removed=True) == []
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

    def audited() -> list[str]:
        psql = stack.compose.execute("database", "psql", "-U", "fleet", "-d", "fleet", "-At", "-c", query)
        assert psql.returncode == 0, psql.stderr
        return psql.stdout.split()

    until(lambda: "run.succeeded" in audited(), "its end is on record")
    assert audited() == ["run.queued", "run.accepted", "run.started", "run.succeeded"]


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


def test_every_service_has_limits_and_those_that_run_come_back(stack: Stack) -> None:
    for service in RUNNING | ONE_SHOT:
        settings = stack.container(service).attrs["HostConfig"]
        assert settings["Memory"] > 0, service
        assert settings["NanoCpus"] > 0, service
        assert settings["PidsLimit"] > 0, service
        assert settings["RestartPolicy"]["Name"] in ({"unless-stopped"} if service in RUNNING else {"no", ""}), service


def succeeded(stack: Stack) -> float:
    """Return how many runs Prometheus is told have succeeded."""
    status, text = stack.curl("http://127.0.0.1:9464/metrics")
    assert status == 200
    return float(re.findall(r'^fleet_runs\{state="succeeded"\} ([\d.]+)$', text, re.MULTILINE)[0])


def test_curl_pushes_a_task_flower_shows_it_and_prometheus_counts_it(stack: Stack) -> None:
    before = succeeded(stack)
    bearer = stack.compose.execute("control", "cat", "api.token").stdout.strip()
    login = ("--header", f"Authorization: Bearer {bearer}")
    task = {"host_id": HOST, "task": "fleet.host.ping", "arguments": {"echo": "hi"}, "description": "by curl"}

    assert stack.curl("http://127.0.0.1:5556/api/hosts")[0] == 401
    push = json.dumps({**task, "metadata": {}})
    status, text = stack.curl("http://127.0.0.1:5556/api/admin/push-task", *login, "--json", push)
    pushed = json.loads(text)
    assert (status, pushed["status"], pushed["agent_id"]) == (200, "queued", HOST)
    _, text = stack.curl(f"http://127.0.0.1:5556/api/runs/{pushed['task_id']}?wait_seconds=30", *login)
    run = json.loads(text)
    assert (run["state"], run["reply"]["echo"], run["submitted_by"]) == ("succeeded", "hi", "compose")

    password = stack.compose.execute("flower", "cat", "flower.password").stdout.strip()
    until(lambda: stack.flower(f"/task/{pushed['task_id']}", password=password) == 200, "Flower shows the task")
    until(lambda: succeeded(stack) >= before + 1, "Prometheus counts it")  # and maybe a former test's, late


def test_the_bearer_token_is_its_owners_alone(stack: Stack) -> None:
    assert stack.compose.execute("control", "stat", "-c", "%a %U", "api.token").stdout == "600 fleet\n"


def test_a_second_up_finds_the_host_enrolled_and_makes_no_token(stack: Stack) -> None:
    tokens = stack.fleet("token", "list")

    stack.compose.check("down")
    assert stack.client.containers.list(all=True, ignore_removed=True) == []
    assert stack.client.networks.list(names=["fleet_default"]) == []
    stack.up()

    assert [token["id"] for token in stack.fleet("token", "list")] == [token["id"] for token in tokens]
    assert stack.fleet("host", "list")[0]["presence"] == "online"
    (run,) = stack.fleet("push-task", "fleet.host.ping", "--host", HOST, "--wait")["runs"]
    assert run["state"] == "succeeded"
