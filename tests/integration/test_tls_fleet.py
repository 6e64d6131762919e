"""A fleet whose broker speaks TLS: everything works as ever, through restarts and new certificates."""

import json
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest

from fleet import credentials
from fleet.client import Fleet
from tests.services.broker import Broker
from tests.services.ports import free_port
from tests.services.system import Part, System
from tests.services.tls import Certificates
from tests.services.waiting import until

HOST = "h1"


@pytest.fixture
def backend() -> str:
    """The database has no part in this."""
    return "sqlite"


@pytest.fixture
def broker(tls_broker: Broker) -> Broker:
    """The broker of `system`: one that speaks TLS."""
    return tls_broker


class Machine:
    """A machine of its own: a state directory, and no settings at all. What it knows, it has from its token."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.environment = {
            "FLEET_STATE_DIR": str(system.directory / "machine"),
            "FLEET_BROKER_URL": "",
            "FLEET_BROKER_CA": "",
            "FLEET_DATABASE_URL": "",
        }

    def enroll(self, token: str) -> None:
        part = self._system.run("enroll", token, "--host-id", HOST, **self.environment)
        assert part.process.wait(30) == 0, part.log.read_text()

    def start_worker(self, **environment: str) -> Part:
        return self._system.start_worker(HOST, **{**self.environment, **environment})

    @property
    def credential(self) -> Path:
        return Path(self.environment["FLEET_STATE_DIR"]) / "hosts" / HOST / "credential.json"


@pytest.fixture
def machine(system: System) -> Machine:
    """A machine that a token has made host h1; its worker is not started yet."""
    system.start_control()
    made = system.command("token", "create", "--host-id", HOST, "-o", "id")
    assert made.returncode == 0, made.stderr
    machine = Machine(system)
    machine.enroll(made.stdout.strip())
    return machine


def ping(fleet: Fleet) -> str:
    (outcome,) = fleet.push("fleet.host.ping", on=HOST, arguments={"echo": "hello"}).wait(timeout=60)
    assert outcome.state == "succeeded", outcome
    return outcome.run_id


def test_the_token_alone_is_enough_and_the_host_works(
    system: System, machine: Machine, certificates: Certificates
) -> None:
    credential = credentials.load(machine.credential, host=HOST)
    assert credential.broker_ca == certificates.ca.read_text()
    assert credential.broker_url.get_secret_value().startswith("rediss://")
    machine.start_worker()
    with system.fleet.watch() as watch:
        run = ping(system.fleet)
        seen: set[str] = set()
        while "run.succeeded" not in seen:
            seen |= {event["event"] for event in watch.events(timeout=30) if event.get("run") == run}
    assert {"run.queued", "run.started"} <= seen
    assert system.record(run, state="succeeded").reply["echo"] == "hello"  # type: ignore[index]
    assert system.fleet.dispatcher.task("fleet.host.ping").apply_async(host=HOST).get(timeout=30)["host"] == HOST
    pushed = system.command("push-task", "fleet.host.ping", "--host", HOST, "--wait", "--follow")
    assert pushed.returncode == 0, pushed.stderr
    assert "run.succeeded" in pushed.stderr
    for words in (("doctor",), ("health", "control"), ("host", "list"), ("ps",)):
        done = system.command(*words)
        assert (words, done.returncode in {0, 1}, "Traceback" in done.stderr) == (words, True, False)
        assert "TLS" not in done.stderr, done.stderr
    healthy = system.run("health", "worker", "--host-id", HOST, **machine.environment)
    assert healthy.process.wait(30) == 0, healthy.log.read_text()


def test_flower_hears_the_host_and_shows_its_queue(system: System, machine: Machine) -> None:
    port = free_port()
    flower = system.run("flower", "--port", str(port), FLEET_FLOWER_PASSWORD="hush")
    until(lambda: "flower.started" in flower.log.read_text(), "Flower has started")
    machine.start_worker()

    def ask(path: str) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        request.add_header("Authorization", f"Basic {b64encode(b'fleet:hush').decode()}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())

    until(lambda: f"{HOST}@fleet" in json.loads(ask("/api/workers")), "Flower has heard the host")
    run = ping(system.fleet)
    until(lambda: run in json.loads(ask("/api/tasks")), "Flower has heard the task")
    page = ask("/broker")
    assert f"fleet:h:{HOST}:q" in page
    assert f"rediss://127.0.0.1:{system.broker.port}/0" in page
    assert "Unable to get queues" not in flower.log.read_text()


def test_everybody_reconnects_to_a_broker_that_was_restarted(system: System, machine: Machine) -> None:
    worker = machine.start_worker()
    control = system.parts[0]
    ping(system.fleet)
    system.broker.stop(kill=True)
    until(lambda: "broker.lost" in worker.log.read_text(), "the worker notices")
    system.broker.start()
    until(lambda: "broker.regained" in worker.log.read_text(), "the worker is back")
    until(lambda: system.heartbeat(HOST), "it has said so: the former heartbeat may have run out meanwhile")
    system.record(ping(system.fleet), state="succeeded")
    assert (worker.process.poll(), control.process.poll()) == (None, None)
    assert "Traceback" not in worker.log.read_text() + control.log.read_text()


def test_a_restart_with_a_certificate_of_a_stranger_keeps_everybody_out_until_it_is_put_right(
    system: System, machine: Machine, other_certificates: Certificates
) -> None:
    worker = machine.start_worker()
    ping(system.fleet)
    right = system.broker.certificate
    system.broker.stop()
    system.broker.certificate = other_certificates.server("127.0.0.1")
    try:
        system.broker.start()
        until(
            lambda: "its certificate is of a CA that is not trusted here" in worker.log.read_text(),
            "the worker says it",
        )
        assert worker.process.poll() is None
    finally:
        system.broker.stop()
        system.broker.certificate = right
        system.broker.start()
    until(lambda: "broker.regained" in worker.log.read_text(), "the worker is back")
    until(lambda: system.heartbeat(HOST), "it has said so: the former heartbeat may have run out meanwhile")
    ping(system.fleet)
    assert "Traceback" not in worker.log.read_text()


def test_a_fleet_can_change_its_ca_without_enrolling_anew(
    system: System, machine: Machine, other_certificates: Certificates
) -> None:
    right, ca = system.broker.certificate, system.broker.ca
    system.broker.stop()
    system.broker.certificate, system.broker.ca = other_certificates.server("127.0.0.1"), other_certificates.ca
    try:
        system.broker.start()
        refused = system.run("worker", "--host-id", HOST, **machine.environment)
        assert refused.process.wait(30) == 5
        assert "is it the broker's?" in refused.log.read_text()
        assert "Traceback" not in refused.log.read_text()
        machine.start_worker(FLEET_BROKER_CA=str(other_certificates.ca))
    finally:
        system.broker.stop()
        system.broker.certificate, system.broker.ca = right, ca
