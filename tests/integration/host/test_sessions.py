"""Sessions: one worker for each host id, and an orderly end of each."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from fleet import names
from tests.services.freezing import frozen
from tests.services.system import Part, System
from tests.services.waiting import until


@pytest.fixture
def backend() -> str:
    """Who is a host's worker is said by the broker."""
    return "sqlite"


def elsewhere(system: System, host: str, directory: Path, **environment: str) -> Part:
    """Start a second worker of an enrolled host, as on another machine that has its credential."""
    credential = system.settings.credential_path(host)
    copied = directory / "hosts" / host / "credential.json"
    copied.parent.mkdir(parents=True)
    shutil.copy2(credential, copied)
    return system.run("worker", "--host-id", host, FLEET_STATE_DIR=str(directory), **environment)


def says(part: Part, event: str) -> None:
    until(lambda: event in part.log.read_text(), f"{part.log.name} says {event}")


def test_a_worker_elsewhere_waits_for_the_living_one_and_takes_over_when_it_ends(
    system: System, tmp_path: Path
) -> None:
    system.start_control()
    system.enroll("h1")
    first = system.start_worker("h1")
    second = elsewhere(system, "h1", tmp_path / "elsewhere")
    says(second, "host.taken")
    assert system.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)["host"] == "h1"
    assert first.stop() == 0
    says(second, "worker.started")
    until(lambda: system.heartbeat("h1"), "the second one is alive")  # the first took its heartbeat along
    assert system.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)["host"] == "h1"


def test_a_session_that_was_frozen_ends_when_another_has_begun(system: System, tmp_path: Path) -> None:
    system.start_control()
    system.enroll("h1")
    first = system.start_worker("h1")
    with frozen(first.process.pid):
        system.redis.delete(names.presence("h1"))  # what 35 s of silence do
        second = elsewhere(system, "h1", tmp_path / "elsewhere")
        says(second, "worker.started")
        until(lambda: system.heartbeat("h1"), "the second one is alive")
        waiting = [system.fleet.push("fleet.host.ping", on="h1").run_ids[0] for _ in range(5)]
    assert first.process.wait(60) == os.EX_TEMPFAIL  # 10 s, on a machine with nothing else to do
    for run_id in waiting:
        system.record(run_id, state="succeeded")
        assert [event.event for event in system.life(run_id)].count("run.started") == 1
    beat = system.heartbeat("h1")
    assert beat is not None
    assert beat.epoch == 2
    until(lambda: system.events("host.fenced"), "the older session's last word is on record")


def test_a_worker_that_is_told_to_stop_leaves_with_nothing_in_hand_and_its_queue_as_it_was(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    worker = system.start_worker("h1")
    assert worker.stop() == 0
    for _ in range(3):
        system.fleet.push("fleet.host.ping", on="h1", offline="queue")
    assert system.redis.llen(names.queue("h1")) == 3
    again = system.start_worker("h1")
    until(lambda: system.redis.llen(names.queue("h1")) == 0, "the queue is drained")
    assert again.stop() == 0
    assert system.redis.exists(names.inbox("h1", 1), names.inbox("h1", 2)) == 0


def test_what_cannot_be_read_in_an_inbox_of_a_former_session_does_not_keep_the_next_one_from_starting(
    system: System,
) -> None:
    system.start_control()
    system.enroll("h1")
    worker = system.start_worker("h1")
    worker.stop(number=signal.SIGKILL)
    for item in (b"\xff\xfe", b"{}"):
        system.redis.lpush(names.inbox("h1", 1), item)
    system.start_worker("h1")
    assert system.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)["host"] == "h1"
    until(lambda: system.redis.llen(names.dead("h1")) == 2, "both are dead letters")
