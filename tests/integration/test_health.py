"""Health endpoints of real workers: what they answer when all is well, and when something is away or hangs."""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fleet import credentials, names
from fleet.local import endpoint
from fleet.local.incarnation import Incarnation
from tests.services import asking, hanging, offered
from tests.services.freezing import frozen
from tests.services.ports import free_port
from tests.services.system import System
from tests.services.waiting import until

pytestmark = pytest.mark.parametrize("backend", ["sqlite"])

#: Workers that hang are seen to after 30 s.
HANGS = 90.0


class Manager:
    """What systemd is to a service: a socket that hears what it tells."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._door.settimeout(0.2)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Return all that has come so far."""
        try:
            while True:
                self.heard.append(self._door.recv(4096).decode())
        except TimeoutError:
            return self.heard

    def quiet(self) -> bool:
        """Say whether nothing comes for some time."""
        before = len(self.listen())
        self._door.settimeout(3)
        try:
            return len(self.listen()) == before
        finally:
            self._door.settimeout(0.2)

    def close(self) -> None:
        self._door.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """One that listens on a socket with a path."""
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def abstract_manager() -> Iterator[Manager]:
    made = Manager(f"@fleet-test-{os.getpid()}")
    yield made
    made.close()


def enroll(system: System) -> None:
    """Start a control worker, and let h1 in."""
    system.start_control()
    system.enroll("h1")


def test_a_worker_says_what_is_well_and_what_is_not(system: System) -> None:
    enroll(system)
    worker = system.start_worker("h1")
    found = asking.listening(system, "h1")
    until(lambda: asking.wrong(found) == ["docker"], "all but Docker is well")
    status, said = asking.ask(found, "/health")
    assert status == 200
    assert (said["ok"], said["part"], said["host"], said["availability"]) == (True, "worker", "h1", "active")
    assert (said["live"], said["healthy"], said["ready"]) == (True, True, False)
    assert {check["name"] for check in said["checks"]} == {
        "loops",
        "session",
        "broker",
        "consuming",
        "journal",
        "docker",
    }
    assert all(check["text"] for check in said["checks"])
    assert asking.ask(found, "/health/live")[0] == 200
    assert asking.ask(found, "/health/ready")[0] == 503
    secrets = credentials.load(system.settings.credential_path("h1"), host="h1")
    password = secrets.broker_url.get_secret_value().rpartition("@")[0].rpartition(":")[2]
    assert len(password) > 20
    for page in (*endpoint.PATHS.values(), "/metrics"):
        said_there = asking.get(found, page)[1]
        assert password not in said_there
        assert secrets.private_key.get_secret_value() not in said_there
    with system.broker.connect() as client:
        ours = [each["name"] for each in client.client_list() if each["name"].startswith("fleet-h1")]
    assert 1 <= len(ours) <= 6, ours
    assert worker.stop() == 0
    assert not asking.file_of(system, "h1").exists()


def test_a_worker_whose_broker_is_away_is_live_and_not_ready(system: System) -> None:
    enroll(system)
    system.start_worker("h1")
    found = asking.listening(system, "h1")
    system.broker.stop()
    try:
        until(lambda: "broker" in asking.wrong(found), "it misses its broker", timeout=HANGS)
        # longer than a loop may hang: it tries to connect, so it does not
        until(lambda: "consuming" in asking.wrong(found), "it knows that it does not consume", timeout=HANGS)
        assert asking.ask(found, "/health/live")[0] == 200
    finally:
        system.broker.start()
    until(lambda: asking.wrong(found) == ["docker"], "it is well again", timeout=HANGS)


def test_a_consumer_that_hangs_is_neither_ready_nor_live_and_systemd_hears_no_more_of_it(
    system: System, manager: Manager
) -> None:
    enroll(system)
    system.packages.append(hanging.PATH)
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    worker = system.start_worker("h1", **environment)
    found = asking.listening(system, "h1")
    until(lambda: manager.listen().count("WATCHDOG=1") >= 2, "it gives signs of life")
    assert manager.heard.count("READY=1") == 1
    assert asking.wrong(found, "/health/live") in ([], ["docker"])
    os.kill(worker.process.pid, hanging.HANGS)
    until(lambda: "consuming" in asking.wrong(found), "it is seen to hang", timeout=HANGS)
    assert asking.ask(found, "/health")[0] == asking.ask(found, "/health/live")[0] == 503
    beat = system.heartbeat("h1")
    assert beat is not None, "the rest of the process goes on"
    until(lambda: "watchdog.silenced" in worker.log.read_text(), "the watchdog is silenced")
    until(manager.quiet, "it gives no sign of life any more")
    done = system.command("health", "worker", "--host-id", "h1", "--live")
    assert done.returncode == 1
    assert "consumer has not ticked for" in done.stdout
    os.kill(worker.process.pid, hanging.GOES_ON)
    until(lambda: asking.ask(found, "/health/live")[0] == 200, "it goes on")
    assert worker.stop() == 0
    assert manager.listen().count("STOPPING=1") == 1


def test_nothing_that_a_worker_starts_can_speak_to_systemd_for_it(system: System, tmp_path: Path) -> None:
    enroll(system)
    system.packages.append(offered.PATH)
    worker = system.start_worker("h1", NOTIFY_SOCKET=str(tmp_path / "nobody"), WATCHDOG_USEC="60000000")
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert children, "it has started its zygote"
    for child in children:
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment


def test_a_paused_host_is_ready_and_says_that_it_is_paused(system: System) -> None:
    enroll(system)
    system.start_worker("h1")
    found = asking.listening(system, "h1")
    assert system.command("host", "pause", "h1").returncode == 0
    until(lambda: asking.ask(found, "/health")[1]["availability"] == "paused", "it is paused")
    assert asking.wrong(found) in ([], ["docker"])
    assert asking.ask(found, "/health")[0] == 200


def test_a_worker_that_waits_for_its_last_task_is_live_and_at_work_no_more(system: System, offered: Path) -> None:
    enroll(system)
    system.packages.append(offered)
    worker = system.start_worker("h1")
    found = asking.listening(system, "h1")
    note = system.directory / "note"
    [run] = system.fleet.push("offered.effect", on="h1", arguments={"log": str(note), "seconds": 600}).run_ids
    until(note.exists, f"{run} has begun")
    worker.process.terminate()
    until(lambda: "session" in asking.wrong(found, "/health"), "it is seen to end")
    status, said = asking.ask(found, "/health/live")
    assert status == 200
    assert {check["name"]: check["text"] for check in said["checks"]}["session"] == "it was told to stop"
    assert worker.stop(timeout=30) == 0  # told for a second time, it ends at once


def test_a_superseded_worker_is_at_work_no_more(system: System, offered: Path) -> None:
    enroll(system)
    system.packages.append(offered)
    worker = system.start_worker("h1")
    found = asking.listening(system, "h1")
    beat = system.heartbeat("h1")
    assert beat is not None
    note = system.directory / "note"
    [run] = system.fleet.push("offered.effect", on="h1", arguments={"log": str(note), "seconds": 600}).run_ids
    until(note.exists, f"{run} has begun")
    system.redis.set(names.epoch("h1"), beat.epoch + 1)

    def why() -> str:
        checks = {check["name"]: check for check in asking.ask(found, "/health")[1]["checks"]}
        return "" if checks["session"]["ok"] else checks["session"]["text"]

    assert until(why, "it knows") == "another session has taken over this host"
    assert worker.process.wait(30) == os.EX_TEMPFAIL


def test_the_control_worker_says_what_is_well_and_what_is_not(system: System) -> None:
    control = system.start_control()
    found = asking.listening(system)
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready")
    said = asking.ask(found, "/health")[1]
    assert {check["name"] for check in said["checks"]} == {
        "loops",
        "broker",
        "database",
        "lease",
        "ingest",
        "enrollment",
    }
    assert (said["part"], said["host"]) == ("control", None)
    second = system.run("control")  # it shares the state directory, so its address takes the first one's place
    until(lambda: (now := asking.listening(system)) != found and asking.ask(now, "/health/ready")[0] == 200, "both are")
    other = asking.listening(system)
    lease = next(check for check in asking.ask(other, "/health")[1]["checks"] if check["name"] == "lease")
    assert "another control worker holds it" in lease["text"]
    assert control.stop() == 0
    assert asking.listening(system) == other, "the file is the second one's"
    assert second.stop() == 0
    system.broker.stop()
    waiting = system.run("control")
    try:
        found = asking.listening(system)
        assert waiting.process.pid == found.process.pid
        assert asking.ask(found, "/health/live")[0] == 200
        assert asking.ask(found, "/health")[0] == 503
    finally:
        system.broker.start()
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready once there is a broker")


def test_a_control_worker_whose_broker_goes_away_is_live_and_not_ready(system: System) -> None:
    system.start_control()
    found = asking.listening(system)
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready")
    system.broker.stop()
    try:
        until(lambda: {"broker", "lease"} <= set(asking.wrong(found)), "it misses its broker", timeout=HANGS)
        assert asking.ask(found, "/health/live")[0] == 200
    finally:
        system.broker.start()
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready again", timeout=HANGS)


def test_a_control_worker_that_records_nothing_is_live_and_not_ready(system: System) -> None:
    enroll(system)
    found = asking.listening(system)
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready")
    with system.engine.begin() as connection:  # what is read is there, and what is reported cannot be written
        connection.exec_driver_sql("ALTER TABLE report_cursor RENAME TO report_cursor_away")
    [run] = system.fleet.push("fleet.host.ping", on="h1", offline="queue").run_ids
    until(lambda: asking.wrong(found) == ["ingest"], "it is seen to record nothing", timeout=HANGS)
    [check] = [check for check in asking.ask(found, "/health")[1]["checks"] if not check["ok"]]
    assert re.match(r"it has recorded nothing for [3-9]\d s: ", check["text"])
    assert "the database" in check["text"]
    assert asking.ask(found, "/health/live")[0] == 200, "ending it would not mend the database"
    assert system.command("health", "control", "--ready").returncode == 1
    with system.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE report_cursor_away RENAME TO report_cursor")
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready again", timeout=HANGS)
    system.record(run, state="queued")


def test_a_control_worker_is_up_for_systemd_when_it_has_started(system: System, abstract_manager: Manager) -> None:
    manager = abstract_manager
    control = system.run("control", NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="1000000")
    until(lambda: manager.listen().count("WATCHDOG=1") >= 2 and "READY=1" in manager.heard, "it tells systemd")
    assert control.stop() == 0
    assert manager.listen()[-1] in {"STOPPING=1", "WATCHDOG=1"}
    assert manager.heard.count("STOPPING=1") == 1


def test_an_address_that_somebody_insists_on_and_that_is_taken_is_an_error(system: System) -> None:
    enroll(system)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for words in (("control",), ("worker", "--host-id", "h1")):
            part = system.run(*words, FLEET_HEALTH_ADDRESS=address)
            assert part.process.wait(30) != 0
            said = part.log.read_text()
            assert f"health: cannot listen on {address}" in said
            assert "a free port in FLEET_HEALTH_ADDRESS" in said
            assert "Traceback" not in said


def test_where_the_usual_port_is_taken_another_one_is_listened_on(system: System) -> None:
    enroll(system)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        worker = system.start_worker("h1", FLEET_HEALTH_ADDRESS="", FLEET_ADVERTISE_PORT=port)
        found = asking.listening(system, "h1")
        assert found.port != int(port)
        assert f"instead_of=127.0.0.1:{port}" in worker.log.read_text()
    assert asking.ask(found, "/health/live")[0] == 200


def test_the_usual_port_is_the_one_that_the_host_advertises(system: System) -> None:
    enroll(system)
    port = free_port()
    system.start_worker("h1", FLEET_HEALTH_ADDRESS="", FLEET_ADVERTISE_PORT=str(port))
    assert (found := asking.listening(system, "h1")).port == port
    assert found.host == "127.0.0.1"


def test_a_worker_without_an_endpoint_is_seen_by_its_heartbeat(system: System) -> None:
    enroll(system)
    worker = system.start_worker("h1", FLEET_HEALTH_ADDRESS="off")
    assert not asking.file_of(system, "h1").exists()
    assert "health.served" not in worker.log.read_text()
    done = system.command("health", "worker", "--host-id", "h1", "--json")
    assert done.returncode == 0
    [said] = json.loads(done.stdout)
    assert (said["healthy"], said["source"], said["checks"]) == (True, "broker", None)


def test_what_a_killed_worker_left_is_not_believed(system: System) -> None:
    enroll(system)
    worker = system.start_worker("h1")
    file = asking.file_of(system, "h1")
    before = asking.listening(system, "h1")
    worker.process.kill()
    worker.process.wait(30)
    assert file.exists()
    assert endpoint.find(file) is None
    # the number is another process's now
    mine = Incarnation.of(os.getpid())
    assert mine is not None
    file.write_text(file.read_text().replace(f'"pid": {before.process.pid}', f'"pid": {mine.pid}'))
    assert endpoint.find(file) is None
    for junk in ("", "[]", "{}", '{"process": 1}', '{"process": {"pid": "x"}}', "\x00"):
        file.write_text(junk)
        assert endpoint.find(file) is None


def test_the_command_asks_the_endpoint_and_tells_each_reason(system: System) -> None:
    enroll(system)
    system.start_worker("h1")
    found = asking.listening(system, "h1")
    until(lambda: asking.wrong(found) == ["docker"], "all but Docker is well")
    until(lambda: asking.ask(asking.listening(system), "/health/ready")[0] == 200, "the control worker is ready")
    codes = {
        words: system.command("health", *words, "--host-id", "h1").returncode
        for words in (
            ("worker",),
            ("worker", "--live"),
            ("worker", "--ready"),
            ("control",),
            ("control", "--live"),
            ("control", "--ready"),
        )
    }
    assert [words for words, code in codes.items() if code] == [("worker", "--ready")]
    done = system.command("health", "--host-id", "h1", "--ready")
    assert done.returncode == 1
    assert re.search(r"docker +fail +the Engine does not answer", done.stdout)
    for line in ("docker", "the Engine does not answer", "consuming", "it takes what is pushed", "lease", "database"):
        assert line in done.stdout
    quiet = system.command("health", "--host-id", "h1", "--ready", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (1, "", "")
    [worker, control] = json.loads(system.command("health", "--host-id", "h1", "--json").stdout)
    assert (worker["source"], control["part"]) == (found.url, "control")
    assert {"name", "ok", "text", "age_seconds", "counts_for"} == set(worker["checks"][0])
    assert worker["finding"] == "all is well"
    table = system.command("health", "worker", "--host-id", "h1").stdout
    assert re.search(r"docker +warn +the Engine does not answer", table), "it does not count for that"


def test_a_frozen_worker_is_told_as_one_that_does_not_answer(system: System) -> None:
    enroll(system)
    worker = system.start_worker("h1")
    asking.listening(system, "h1")
    with frozen(worker.process.pid):
        done = system.command("health", "worker", "--host-id", "h1", "--live")
    assert done.returncode == 1
    assert f"process {worker.process.pid} lives, and does not answer" in done.stdout
