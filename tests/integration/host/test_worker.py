"""A host worker as a process: what is pushed to it runs once, is answered, recorded, and told to whoever asks."""

import gc
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from celery import group

from fleet import db, errors, inventory, names, presence, runs
from fleet.client import Fleet
from fleet.clock import now
from fleet.contracts.presence import Presence
from fleet.dispatch import RunSignature
from tests import factories
from tests.services.availability import missing
from tests.services.docker import IMAGE
from tests.services.freezing import frozen
from tests.services.private_engine import PrivateEngine
from tests.services.system import System
from tests.services.waiting import until


@pytest.fixture
def backend() -> str:
    """The worker never sees the database; `test_a_task_lives` runs on both."""
    return "sqlite"


#: Tests that leave the fleet as they found it share one.
in_standing = pytest.mark.xdist_group("standing")


@pytest.fixture
def host(system: System) -> str:
    """A fleet of one host, h1, without Docker."""
    system.start_control()
    system.enroll("h1", labels={"env": "test"})
    system.start_worker("h1")
    return "h1"


#: Changes a kombu message in place.
Change = Callable[[dict[str, Any]], object]


def push(system: System, task: str, *, host: str = "h1", expires: float | None = None, **arguments: object) -> str:
    """Push and return the run's id."""
    return system.fleet.push(task, on=host, arguments=arguments, expires=expires).run_ids[0]


class TestLife:
    @pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
    def backend(self, request: pytest.FixtureRequest) -> str:
        if request.param == "postgresql":
            request.getfixturevalue("postgres")
        return str(request.param)

    def test_a_task_lives_from_queued_to_succeeded_and_every_step_is_on_record(self, system: System, host: str) -> None:
        batch = system.fleet.push(
            "fleet.host.ping",
            on=host,
            arguments={"echo": "hello"},
            description="is it there?",
            metadata={"ticket": 42, "unknown": {"deep": [1, None]}},
        )
        (outcome,) = batch.wait(timeout=30)
        assert outcome.state == "succeeded"
        assert outcome.reply is not None
        assert outcome.reply["echo"] == "hello"
        run = system.record(outcome.run_id, state="succeeded")
        assert (run.task, run.description, run.submitted_by) == ("fleet.host.ping", "is it there?", "alice")
        assert run.meta == {"ticket": 42, "unknown": {"deep": [1, None]}}
        assert run.reply == outcome.reply
        assert run.submitted_at <= run.assigned_at <= run.started_at <= run.finished_at  # type: ignore[operator]
        life = system.life(outcome.run_id)
        assert {event.event for event in life} == {"run.queued", "run.accepted", "run.started", "run.succeeded"}
        told_by_host = [event for event in life if event.actor == "h1"]
        assert [event.seq for event in told_by_host] == sorted(event.seq for event in told_by_host)
        assert system.events("report.missing") == []

    def test_the_host_is_on_record_with_its_facts_and_labels(self, system: System, host: str) -> None:
        def registered() -> bool:
            with db.session(system.engine, write=False) as session:
                return bool(inventory.host(session, host).facts)

        until(registered, "the registration")
        with db.session(system.engine, write=False) as session:
            record = inventory.host(session, host)
            assert record.labels == {"env": "test"}
            assert record.facts["cpus"] >= 1
            assert record.facts["port"] == 8000
            assert record.facts["docker_version"] is None


@in_standing
def test_a_task_that_fails_says_why_and_raises_fleets_error_at_the_caller(standing: System) -> None:
    result = standing.fleet.dispatcher.task("fleet.containers.list").apply_async(host="h1")
    with pytest.raises(errors.TaskFailed, match="does not answer") as caught:
        result.get(timeout=30)
    assert caught.value.kind == "engine_unavailable"
    assert standing.record(result.id, state="failed").error["kind"] == "engine_unavailable"  # type: ignore[index]


@in_standing
def test_groups_of_signatures_bring_one_reply_a_member(standing: System) -> None:
    task = standing.fleet.dispatcher.task("fleet.host.ping")
    signatures = [
        RunSignature(task, kwargs={"echo": str(n)}, app=task.app, options={"host": "h1", "offline": "fail"})
        for n in range(12)
    ]
    results = group(signatures)()
    assert [reply["echo"] for reply in results.get(timeout=30)] == [str(n) for n in range(12)]
    assert all(names.host_of_run(result.id) == "h1" for result in results.results)


def test_the_same_message_a_hundred_times_runs_once(system: System, host: str) -> None:
    with frozen(system.parts[0].process.pid):  # so that the report is still there to read
        run_id = push(system, "fleet.host.ping")
        item = system.item_of(run_id)
        system.redis.lpush(names.queue(host), *[item] * 100)
        until(lambda: system.redis.llen(names.queue(host)) == 0, "the queue is drained")
    system.record(run_id, state="succeeded")
    until(lambda: system.redis.llen(names.inbox(host, 1)) == 0, "the inbox is empty")
    assert [event.event for event in system.life(run_id)].count("run.started") == 1


#: What is no message.
NO_MESSAGES = {
    "text": b"not json",
    "bytes": b"\xff\xfe\x00",
    "list": b"[1, 2]",
    "empty": b"{}",
    "no headers": b'{"properties": {}}',
    "list headers": b'{"properties": {"delivery_tag": "x"}, "headers": [], "body": "x"}',
    "bad base64": b'{"properties": {"body_encoding": "base64"}, "headers": {}, "body": "%%%"}',
    "bad id": b'{"properties": {}, "headers": {"id": "h1:x", "task": "fleet.host.ping"}, "body": "[[],{},{}]"}',
    "deep": b"[" * 100_000,
    "large": b'"' + b"x" * 600_000 + b'"',
    "list delivery": b'{"properties": {"delivery_info": ["x"]}, "headers": {}, "body": "[[],{},{}]"}',
    "compressed": b'{"properties": {"delivery_info": {}}, "headers": {"compression": "zlib"}, "body": "x"}',
    "surrogate": b'{"properties": {"delivery_info": {}}, "headers": {}, "body": "\\ud800"}',
}


@in_standing
def test_an_item_that_is_no_message_is_put_aside_and_the_next_good_task_runs(standing: System) -> None:
    refused = len(standing.events("message.refused"))
    for name, item in NO_MESSAGES.items():
        standing.redis.lpush(names.queue("h1"), item)
        (outcome,) = standing.fleet.push("fleet.host.ping", on="h1").wait(timeout=30)
        assert outcome.state == "succeeded", name
        letter = json.loads(str(standing.redis.lindex(names.dead("h1"), 0)))
        assert letter["reason"] in ("malformed", "too_large"), name
        assert letter["size"] == len(item)
    recorded = refused + len(NO_MESSAGES)
    until(lambda: len(standing.events("message.refused")) == recorded, "the refusals are on record")
    epoch = standing.redis.get(names.epoch("h1"))
    until(lambda: not standing.redis.llen(names.inbox("h1", int(str(epoch)))), "nothing is left in the inbox")


#: What makes a message one that its host rejects, though a principal has signed it for this host.
REJECTED: list[tuple[Change, str]] = [
    (lambda m: m["headers"].update(task="celery.backend_cleanup"), "unknown_task"),
    (lambda m: m["headers"].update(task="fleet.beat.heartbeat"), "unknown_task"),
    (lambda m: m.update(body='[[], {"echo": 1}, {}]'), "invalid_arguments"),
    (lambda m: m.update(body='[[], {"ecko": "x"}, {}]'), "invalid_arguments"),
    (lambda m: m.update(body='[["x"], {}, {}]'), "invalid_arguments"),
    (lambda m: m.update(body='[[], {}, {"chain": [{"task": "x"}]}]'), "callbacks"),
    (lambda m: m.update(body='[[], {"echo": "x", "echo": "y"}, {}]'), "malformed"),
    (lambda m: m.update(body='[[], {"echo": NaN}, {}]'), "malformed"),
    (lambda m: m.update(body="[" * 10_000), "malformed"),
    (lambda m: m["headers"]["fleet"].update(metadata={"x": json.loads("[" * 300 + "]" * 300)}), "malformed"),
    (lambda m: m["headers"]["fleet"].update(metadata={"x": "\ud800"}), "malformed"),
    (lambda m: m["headers"]["fleet"].update(not_after=-1e300), "malformed"),
    (lambda m: m["headers"]["fleet"].update(submitted_at=time.time() - 40 * 86_400), "stale"),
    (lambda m: m["headers"]["fleet"].update(submitted_at=time.time() + 86_400), "from_the_future"),
    (lambda m: m.update(body='[[], {"\\ud800": "x"}, {}]'), "invalid_arguments"),
    (lambda m: m.update({"content-type": "application/x-python-serialize"}), "malformed"),
    (lambda m: m["headers"].update(eta="2099-01-01T00:00:00+00:00"), "malformed"),
    (lambda m: m["headers"].update(expires=1), "malformed"),
]
#: What makes it nobody's word to this host, though a principal has signed it.
REFUSED: list[tuple[Change, str]] = [
    (lambda m: m["headers"]["fleet"].update(host="h2"), "misdirected"),
    (lambda m: m["headers"]["fleet"].update(host_key=factories.key("h1").public), "misdirected"),
    (lambda m: m["headers"].update(id=names.new_run_id("h2")), "misdirected"),
    (lambda m: m["headers"].update(id="h1:x"), "malformed"),
    (lambda m: m["headers"]["fleet"].update(extra=1), "malformed"),
    (lambda m: m["headers"]["fleet"].update(v=3), "malformed"),
    (lambda m: m["headers"]["fleet"].update(submitted_by="bob"), "not_trusted"),
]


def tampered(system: System, change: Change, *, signed: bool) -> tuple[str, str]:
    """Return a message that was changed, as a queue item, and the id of its run."""
    message = system.genuine()
    message["headers"]["id"] = names.new_run_id("h1")
    if signed:
        change(message)
        system.sign(message)
    else:
        system.sign(message)
        change(message)
    return json.dumps(message), message["headers"]["id"]


def refusals(system: System, count: int, *, after: int = 0) -> dict[str | None, str]:
    """Wait for so many messages that were refused beside those before; return the reasons, by the runs that they claim
    to be."""
    until(lambda: len(system.events("message.refused")) >= after + count, "the refusals are on record")
    return {event.data.get("run"): event.data["reason"] for event in system.events("message.refused")[after:]}


def states(system: System) -> dict[str, str]:
    with db.session(system.engine, write=False) as session:
        return {run.id: run.state for run in runs.listing(session)}


@in_standing
def test_a_message_that_is_signed_and_cannot_be_carried_out_is_rejected_with_the_reason(standing: System) -> None:
    expected = {}
    for change, reason in REJECTED:
        item, run_id = tampered(standing, change, signed=True)
        standing.redis.lpush(names.queue("h1"), item)
        expected[run_id] = reason
    found = {run_id: (standing.record(run_id, state="rejected").error or {})["kind"] for run_id in expected}
    assert found == expected
    for run_id in expected:
        with pytest.raises(errors.TaskRejected):
            standing.fleet.dispatcher.app.AsyncResult(run_id).get(timeout=30)
    assert not expected.keys() & {event.data.get("run") for event in standing.events("message.refused")}


@in_standing
def test_the_same_without_a_new_signature_is_nobodys_and_says_nothing_about_a_run(standing: System) -> None:
    refused, expected = len(standing.events("message.refused")), dict[str | None, str]()
    for change, _reason in REJECTED:
        item, run_id = tampered(standing, change, signed=False)
        standing.redis.lpush(names.queue("h1"), item)
        expected[run_id] = "not_trusted"
    assert refusals(standing, len(expected), after=refused) == expected
    assert not expected.keys() & states(standing).keys()
    assert not any(standing.redis.exists(names.result(str(run_id))) for run_id in expected)


@in_standing
def test_what_is_signed_for_another_machine_or_in_anothers_name_is_refused(standing: System) -> None:
    standing.introduce("bob")
    refused, expected = len(standing.events("message.refused")), dict[str | None, str]()
    for change, reason in REFUSED:
        item, run_id = tampered(standing, change, signed=True)
        standing.redis.lpush(names.queue("h1"), item)
        expected[None if run_id == "h1:x" else run_id] = reason
    assert refusals(standing, len(REFUSED), after=refused) == expected
    assert not expected.keys() & states(standing).keys()


def test_a_forged_copy_does_not_touch_the_run_that_it_names(system: System, host: str) -> None:
    system.parts[-1].stop()
    (run_id,) = system.fleet.push("fleet.host.ping", on=host, offline="queue").run_ids
    (item,) = system.redis.lrange(names.queue(host), 0, -1)
    system.redis.delete(names.queue(host))
    forged = json.loads(item)
    forged["body"] = '[[], {"echo": "another"}, {}]'
    system.redis.lpush(names.queue(host), json.dumps(forged))
    system.start_worker(host)
    assert refusals(system, 1) == {run_id: "not_trusted"}
    assert states(system) == {run_id: "queued"}
    system.redis.lpush(names.queue(host), item)
    assert system.record(run_id, state="succeeded").reply["echo"] == ""  # type: ignore[index]


def test_work_whose_time_is_over_expires_and_never_runs(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    late = system.fleet.push("fleet.host.ping", on="h1", offline="queue", expires=0.2)
    timely = system.fleet.push("fleet.host.ping", on="h1", offline="queue")
    pushed_at = time.monotonic()
    until(lambda: time.monotonic() > pushed_at + 0.3, "the expiry")
    system.start_worker("h1")
    (outcome,) = timely.wait(timeout=30)
    assert outcome.state == "succeeded"
    (missed,) = late.wait(timeout=30)
    assert missed.state == "expired"
    assert isinstance(missed.error, errors.TaskExpired)
    system.record(late.run_ids[0], state="expired")
    assert "run.started" not in {event.event for event in system.life(late.run_ids[0])}


@in_standing
def test_a_result_that_came_while_another_was_awaited_is_there_at_once(standing: System) -> None:
    first = standing.fleet.push("fleet.host.ping", on="h1")
    second = standing.fleet.push("fleet.host.ping", on="h1")
    (outcome,) = second.wait(timeout=30)
    until(first.results[0].ready, "the first result")
    begun = time.monotonic()
    assert [o.state for o in (*first.wait(timeout=30), *second.wait(timeout=30))] == ["succeeded", "succeeded"]
    assert time.monotonic() - begun < 15  # who has missed it waits for thirty
    assert outcome.state == "succeeded"


@in_standing
def test_a_result_that_comes_after_the_door_was_closed_is_heard_by_whoever_waits_for_it(standing: System) -> None:
    with Fleet(standing.settings) as fleet:
        batch = fleet.push("fleet.host.ping", on="h1", countdown=3)
    [outcome] = batch.wait(timeout=30)
    assert outcome.state == "succeeded"


@in_standing
def test_a_door_that_was_closed_leaves_nothing_open(standing: System) -> None:
    def open_now() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    def use() -> None:
        with Fleet(standing.settings) as fleet:
            assert [outcome.state for outcome in fleet.push("fleet.host.ping", on="h1").wait(timeout=30)]

    use()
    before = open_now()
    for _ in range(5):
        use()
    assert open_now() <= before


def test_a_clean_stop_signs_the_host_off_at_once_and_ends_soon(system: System, host: str) -> None:
    worker = system.parts[-1]
    begun = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - begun < 25  # below two on an idle machine; what it gives a run is thirty
    assert system.heartbeat(host) is None
    with pytest.raises(errors.HostNotConnected):
        push(system, "fleet.host.ping")
    until(lambda: system.events("host.deregistered"), "the sign-off is on record")
    with db.session(system.engine, write=False) as session:
        assert presence.of(inventory.host(session, host), None, now()) is Presence.OFFLINE


def test_a_killed_worker_keeps_its_key_for_no_longer_than_35_seconds(system: System, host: str) -> None:
    system.parts[-1].stop(number=signal.SIGKILL)
    assert 0 < system.redis.ttl(names.presence(host)) <= 35


def test_a_worker_that_is_started_again_takes_what_waits(system: System, host: str) -> None:
    assert system.parts[-1].stop() == 0
    batch = system.fleet.push("fleet.host.ping", on=host, offline="queue")
    system.start_worker(host)
    (outcome,) = batch.wait(timeout=30)
    assert outcome.state == "succeeded"
    assert system.heartbeat(host).epoch == 2  # type: ignore[union-attr]


def test_what_a_dead_session_left_in_its_inbox_runs_once_in_the_next(system: System, host: str) -> None:
    control, worker = system.parts
    assert worker.stop() == 0
    with frozen(control.process.pid):
        batch = system.fleet.push("fleet.host.ping", on=host, offline="queue")
        system.redis.lmove(names.queue(host), names.inbox(host, 1), "RIGHT", "LEFT")  # as BLMOVE before a kill -9
    system.start_worker(host)
    (outcome,) = batch.wait(timeout=30)
    assert outcome.state == "succeeded"
    assert system.redis.llen(names.inbox(host, 1)) == 0


def test_an_inbox_is_found_however_many_sessions_ended_before_one_consumed(system: System, host: str) -> None:
    """A session that fails at its start, on a full disk say, has taken its epoch already."""
    control, worker = system.parts
    assert worker.stop() == 0
    with frozen(control.process.pid):
        batch = system.fleet.push("fleet.host.ping", on=host, offline="queue")
        system.redis.lmove(names.queue(host), names.inbox(host, 1), "RIGHT", "LEFT")
        system.redis.set(names.epoch(host), 50)
    system.start_worker(host)
    (outcome,) = batch.wait(timeout=30)
    assert outcome.state == "succeeded"


@in_standing
def test_a_second_worker_of_the_same_host_is_refused_and_the_first_goes_on(standing: System) -> None:
    second = standing.run("worker", "--host-id", "h1")
    assert second.process.wait(30) == 1
    said = second.log.read_text()
    assert "runs already" in said
    assert str(standing.parts[1].process.pid) in said
    assert "Traceback" not in said
    push(standing, "fleet.host.ping")


def test_a_broker_that_is_killed_and_comes_back_finds_its_worker_within_seconds(system: System, host: str) -> None:
    system.broker.stop(kill=True)
    system.broker.start()
    back = time.monotonic()

    def answered() -> bool:
        try:
            (outcome,) = system.fleet.push("fleet.host.ping", on=host).wait(timeout=5)
        except errors.Unreachable:
            return False
        return outcome.state == "succeeded"

    until(answered, "a task runs")
    assert time.monotonic() - back < 29  # within five on an idle machine
    lost = system.parts[-1].log.read_text().count("broker.lost")
    assert lost <= 1


def test_heartbeats_outlive_a_broker_outage_that_is_logged_once(system: System, host: str) -> None:
    log = system.parts[-1].log
    system.broker.stop(kill=True)
    until(lambda: "beat.failed" in log.read_text(), "a heartbeat that cannot be written")
    failed_at = time.monotonic()
    until(lambda: time.monotonic() > failed_at + 3, "some more tries")
    known = now().timestamp()
    system.broker.start()
    back = time.monotonic()

    def new_heartbeat() -> bool:
        beat = system.heartbeat(host)
        return beat is not None and beat.at > known

    until(new_heartbeat, "a new heartbeat")
    assert time.monotonic() - back < 25  # within two on an idle machine
    until(lambda: "beat.recovered" in log.read_text(), "its recovery is logged")
    assert log.read_text().count("beat.failed") == 1


def test_an_idle_worker_holds_six_connections_at_most(system: System, host: str) -> None:
    push(system, "fleet.host.ping")
    mine = [c for c in system.redis.client_list() if c["name"].startswith("fleet-h1") and "joining" not in c["name"]]
    assert len(mine) <= 6, [c["name"] for c in mine]


def test_a_journal_that_cannot_be_written_stops_the_worker_and_loses_nothing(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    small = system.directory / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=False).returncode:
        missing("a small file system: mounting one takes root")
    try:
        shutil.copytree(system.directory / "hosts", small / "hosts")
        worker = system.start_worker("h1", FLEET_STATE_DIR=str(small))
        with (small / "filler").open("wb", buffering=0) as filler:
            filler.write(b"x" * 100)
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        batches = [
            system.fleet.push("fleet.host.ping", on="h1", offline="queue", arguments={"echo": "x" * 1000})
            for _ in range(20)
        ]
        assert worker.process.wait(30) == os.EX_IOERR
        assert "journal.failed" in worker.log.read_text()
        assert "Traceback" not in worker.log.read_text()
        (small / "filler").unlink()
        system.start_worker("h1", FLEET_STATE_DIR=str(small))
        for batch in batches:
            (outcome,) = batch.wait(timeout=30)
            assert outcome.state == "succeeded"
    finally:
        for part in system.parts:
            part.stop(number=signal.SIGKILL)
        subprocess.run(["umount", "--lazy", small], check=True)  # what the worker has started may still end


@pytest.mark.docker
def test_heartbeats_go_on_while_the_pool_is_full(system: System, docker_engine: PrivateEngine) -> None:
    client = docker_engine.client()
    client.containers.run(IMAGE, ["/bin/sleep", "300"], name="stubborn", detach=True)  # pid 1 ignores SIGTERM
    client.close()
    system.start_control()
    system.enroll("h1")
    system.start_worker("h1", FLEET_DOCKER_URL=docker_engine.url, FLEET_CONCURRENCY="1")
    push(system, "fleet.containers.stop", container="stubborn", timeout_seconds=25)
    push(system, "fleet.host.ping")

    def beat_of_a_full_pool() -> bool:
        beat = system.heartbeat("h1")
        return beat is not None and beat.in_hand == 1 and beat.queue_length == 1

    until(beat_of_a_full_pool, "a heartbeat that tells of a full pool")
    beat = system.heartbeat("h1")
    assert beat is not None
    assert beat.loop_age_seconds is not None
    assert beat.loop_age_seconds < 10  # a loop that waited for the pool would be 25 s old
    assert beat.docker_reachable is True


@pytest.mark.docker
def test_after_kill_9_what_the_engine_was_asked_for_is_asked_again_or_compared_and_the_rest_runs_once(
    system: System, docker_engine: PrivateEngine
) -> None:
    client = docker_engine.client()
    for name in ("stubborn", "reborn"):  # pid 1 ignores SIGTERM
        client.containers.run(IMAGE, ["/bin/sleep", "300"], name=name, detach=True)
    born, began = client.containers.get("reborn").attrs["State"]["StartedAt"], time.time()
    system.start_control()
    system.enroll("h1")
    worker = system.start_worker("h1", FLEET_DOCKER_URL=docker_engine.url, FLEET_CONCURRENCY="2")
    stopping, restarting = (
        system.fleet.push(task, on="h1", arguments={"container": name, "timeout_seconds": 60}).run_ids[0]
        for task, name in (("fleet.containers.stop", "stubborn"), ("fleet.containers.restart", "reborn"))
    )
    for run in (stopping, restarting):
        system.record(run, state="running")
    both = {"event": "kill", "container": ["stubborn", "reborn"]}
    events = client.events(since=int(began), until=int(began) + 60, filters=both, decode=True)
    asked = {event["Actor"]["Attributes"]["name"] for event in islice(events, 2)}
    events.close()
    assert asked == {"stubborn", "reborn"}, "one that has begun need not have got to the Engine yet"
    waiting = [system.fleet.push("fleet.host.ping", on="h1", arguments={"echo": str(n)}) for n in range(3)]
    worker.stop(number=signal.SIGKILL)
    for name in ("stubborn", "reborn"):  # what the Engine was asked for need not take the minute
        client.containers.get(name).kill()
    until(lambda: client.containers.get("reborn").attrs["State"]["StartedAt"] > born, "the Engine has done it")
    system.start_worker("h1", FLEET_DOCKER_URL=docker_engine.url)
    for batch in waiting:
        (outcome,) = batch.wait(timeout=30)
        assert outcome.state == "succeeded"
        system.record(outcome.run_id, state="succeeded")
        assert [event.event for event in system.life(outcome.run_id)].count("run.started") == 1
    assert system.record(stopping, state="succeeded").attempt == 2
    system.record(restarting, state="succeeded")
    assert "run.recovering" in [event.event for event in system.life(restarting)]
    assert client.containers.get("stubborn").status == "exited"
    reborn = client.containers.get("reborn").attrs["State"]
    client.close()
    assert reborn["Running"]
    assert reborn["StartedAt"] > born
    assert system.events("report.missing") == []
