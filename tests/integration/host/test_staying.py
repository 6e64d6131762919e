"""A worker that no new start would help, below somebody who starts again whatever exits: it stays, and is unhealthy."""

import os
from pathlib import Path

import pytest

from fleet import names
from tests.integration.host.test_sessions import elsewhere, says
from tests.services import asking
from tests.services.system import Part, System
from tests.services.waiting import until

#: The database has no part in this.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

STAYS = {"FLEET_STAY_WHEN_ENDED": "true"}


@pytest.fixture
def office(system: System) -> System:
    """A fleet with a host h1, whose worker has yet to start."""
    system.start_control()
    system.enroll("h1")
    return system


def staying(system: System, worker: Part, why: str) -> None:
    """Wait until a worker stays, and see what it says of itself."""
    says(worker, "worker.stays")
    found = asking.listening(system, "h1")
    assert found.process.pid == worker.process.pid
    status, said = asking.ask(found, "/health/ready")
    assert status == 503
    assert [check["text"] for check in said["checks"] if not check["ok"]] == [why]
    assert asking.ask(found, "/health")[0] == 503
    assert asking.ask(found, "/health/live")[0] == 200, "whoever ends what hangs would start it again and again"
    assert system.command("health", "worker", "--host-id", "h1", "--ready").returncode == 1
    assert worker.process.poll() is None


def test_an_unlisted_host_whose_name_another_machine_has_does_not_take_it_back(office: System, tmp_path: Path) -> None:
    unlisted = {"FLEET_UNLISTED": "true", **STAYS}
    first = office.run("worker", "--host-id", "h1", **unlisted)
    says(first, "worker.started")
    second = elsewhere(office, "h1", tmp_path / "elsewhere", **unlisted)
    staying(office, first, "another session has taken over this host")
    assert office.fleet.push("fleet.host.ping", on="h1", offline="queue").results[0].get(timeout=30)["host"] == "h1"
    assert "worker.superseded" not in second.log.read_text()
    assert first.stop() == os.EX_TEMPFAIL
    assert second.stop() == 0


def test_a_host_that_was_put_out_stays_and_at_its_next_start_as_well(office: System) -> None:
    worker = office.start_worker("h1", **STAYS)
    assert office.command("--yes", "host", "revoke", "h1").returncode == 0
    staying(office, worker, "the host was put out of the fleet")
    assert worker.stop() == os.EX_NOPERM
    again = office.run("worker", "--host-id", "h1", **STAYS)
    remedy = "to let it in again, get a token with `fleet token create` and use `fleet enroll --force`"
    staying(office, again, f"host 'h1' was put out of the fleet, and takes nothing any more; {remedy}")
    assert again.stop() == os.EX_NOPERM
    assert office.run("worker", "--host-id", "h1").process.wait(30) == os.EX_NOPERM, "systemd does not start it either"


def test_a_listed_host_whose_name_another_machine_has_ends_and_waits_for_its_turn_at_its_next_start(
    office: System,
) -> None:
    worker = office.start_worker("h1", **STAYS)
    beat = office.heartbeat("h1")
    assert beat is not None
    office.redis.set(names.epoch("h1"), beat.epoch + 1)
    assert worker.process.wait(60) == os.EX_TEMPFAIL
    assert "worker.stays" not in worker.log.read_text()


def test_one_that_is_told_to_stop_does_not_stay(office: System) -> None:
    worker = office.start_worker("h1", **STAYS)
    assert worker.stop() == 0
    until(lambda: "worker.stopped" in worker.log.read_text(), "it has said goodbye")
