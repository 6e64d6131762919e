"""A normal run, in which nobody may do more than its rules say: the broker denies nothing to anybody.

The fixture `locked` looks into the broker's ACL log at the end of each test.
"""

import signal
import time
from pathlib import Path

import pytest
from celery import group

from fleet import errors, names
from fleet.dispatch import RunSignature
from tests.hostile.conftest import push
from tests.integration.host.test_sessions import elsewhere, says
from tests.services.freezing import frozen
from tests.services.locked import Locked
from tests.services.waiting import until


def test_work_is_pushed_answered_cancelled_expired_and_watched(fleet_of_two: Locked, tmp_path: Path) -> None:
    fleet = fleet_of_two.fleet
    with fleet.watch() as watch:
        first = fleet.push("fleet.host.ping", on="h1", arguments={"echo": "hello"})
        assert first.results[0].get(timeout=30)["echo"] == "hello"
        assert any(event["run"] == first.run_ids[0] for event in watch.events(timeout=30))
    assert fleet.recorded(first, timeout=30)
    everywhere = fleet.push("fleet.host.ping", all_hosts=True)
    assert {outcome.state for outcome in everywhere.wait(timeout=30)} == {"succeeded"}
    task = fleet.dispatcher.task("fleet.host.ping")
    members = [RunSignature(task, kwargs={"echo": str(n)}, app=task.app, options={"host": "h2"}) for n in range(12)]
    assert len(group(members)().get(timeout=30)) == 12
    for name in ("offered.tell_steps", "offered.fail_twice"):
        steps = fleet.push(name, on="h1", arguments={"log": str(tmp_path / "log")}, max_retries=3, retry_backoff=0.1)
        fleet_of_two.record(steps.run_ids[0], state="succeeded")
    with pytest.raises(errors.TaskFailed):
        fleet.push("fleet.containers.list", on="h1").results[0].get(timeout=30)
    with pytest.raises(errors.HostNotEnrolled):
        fleet.push("fleet.host.ping", on="h3")

    running = push(fleet_of_two, "offered.effect", arguments={"log": str(tmp_path / "log"), "seconds": 60})
    fleet_of_two.record(running, state="running")
    fleet.cancel(running)
    fleet_of_two.record(running, state="cancelled")
    later = push(fleet_of_two, countdown=30, expires=60)
    fleet_of_two.record(later, state="accepted")
    fleet.cancel(later)
    fleet_of_two.record(later, state="cancelled")
    with fleet_of_two.broker.connect() as admin:
        admin.lpush(names.queue("h1"), "no message", b"\xff", "{}")
        until(lambda: admin.llen(names.dead("h1")) == 3, "three dead letters")


def test_a_host_that_was_away_finds_its_work_and_loses_none_of_it_when_it_is_killed(
    fleet_of_two: Locked, tmp_path: Path
) -> None:
    worker = fleet_of_two.parts[1]
    assert worker.stop() == 0
    with pytest.raises(errors.HostNotConnected):
        push(fleet_of_two)
    waiting = [push(fleet_of_two, offline="queue", expires=3600) for _ in range(3)]
    cancelled = push(fleet_of_two, offline="queue")
    fleet_of_two.fleet.cancel(cancelled)
    fleet_of_two.record(cancelled, state="cancelled")
    expired, pushed_at = push(fleet_of_two, offline="queue", expires=0.5), time.monotonic()
    until(lambda: time.monotonic() > pushed_at + 0.6, "its time is over: a worker may begin sooner than that")
    again = fleet_of_two.start_worker("h1")
    for run in waiting:
        fleet_of_two.record(run, state="succeeded")
    fleet_of_two.record(expired, state="expired")

    log = {"log": str(tmp_path / "log")}
    busy = [push(fleet_of_two, "offered.held_again", arguments=log) for _ in range(12)]
    fleet_of_two.record(busy[0], state="running")
    assert again.stop(number=signal.SIGKILL) == -signal.SIGKILL
    with fleet_of_two.broker.connect() as admin:  # as if it had been killed between the hand-off and the journal
        run = push(fleet_of_two, offline="queue")
        assert admin.lmove(names.queue("h1"), names.inbox("h1", 2), "RIGHT", "LEFT")
    (tmp_path / "log.go").touch()
    third = fleet_of_two.start_worker("h1")
    for each in (*busy, run):
        fleet_of_two.record(each, state="succeeded")
    assert third.stop() == 0, "what is in its hands goes back into the queue"


def test_a_broker_that_starts_anew_costs_nothing(fleet_of_two: Locked) -> None:
    with frozen(fleet_of_two.parts[1].process.pid):
        awaited = fleet_of_two.fleet.push("fleet.host.ping", on="h1").results[0]
        fleet_of_two.broker.stop(kill=True)
        fleet_of_two.broker.start()
    assert awaited.get(timeout=60)["host"] == "h1"


def test_one_worker_follows_another(locked: Locked, tmp_path: Path) -> None:
    locked.start_control()
    locked.enroll("h1")
    first = locked.start_worker("h1")
    second = elsewhere(locked, "h1", tmp_path / "elsewhere")
    says(second, "host.taken")
    with frozen(first.process.pid), locked.broker.connect() as admin:
        admin.delete(names.presence("h1"))  # what 35 s of silence do
        says(second, "worker.started")
    assert first.process.wait(30) > 0
    assert push(locked)
    assert second.stop() == 0
