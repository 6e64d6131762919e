"""What ingestion has done in the broker: cancelling, sending again what hosts give back or have forgotten."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import audit, clock, db, inventory, names, runs
from fleet.contracts.reports import Kind, Report
from fleet.models import AuditEvent, Run
from tests import factories
from tests.services.broker import Broker
from workers.control.ingest import Ingest
from workers.control.rescue import Rescue

JOURNAL = "0198c0de-0000-7000-8000-000000000001"
IDEMPOTENT, ONCE = "fleet.containers.start", "fleet.containers.restart"


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@pytest.fixture
def ingest(engine: Engine, client: "redis.Redis") -> Ingest:
    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
        factories.introduce(session, "alice", "bob", "carol")
        inventory.host(session, "edge-1").journal = JOURNAL
    return Ingest(engine=engine, client=client, lease=factories.HeldLease(client), voice=factories.voice(engine))


@pytest.fixture
def rescue(engine: Engine, client: "redis.Redis") -> Rescue:
    lease = factories.HeldLease(client)
    return Rescue(engine=engine, client=client, lease=lease, voice=factories.voice(engine), rest=0)


def take_in(ingest: Ingest, client: "redis.Redis", *reports: Report) -> None:
    factories.push(client, *reports)
    while ingest.step():
        ingest.errands.run()


def queued(run: str, **more: Any) -> Report:
    return factories.queued(run, **{"submitted_at": time.time() - 60, **more})


def asked(run: str, *, by: str = "bob", reason: str = "wrong host", at: float | None = None) -> Report:
    moment = time.time() if at is None else at
    return Report(sender=f"p:{by}", kind=Kind.RUN_CANCEL_REQUESTED, run=run, at=moment, data={"reason": reason})


def registered(*unfinished: str, journal: str | None = JOURNAL, many: bool = False, seq: int = 1) -> Report:
    facts = factories.facts().model_dump(mode="json")
    data = {"facts": facts, "journal": journal, "unfinished": None if many else list(unfinished)}
    return factories.report("edge-1", Kind.HOST_REGISTERED, epoch=2, seq=seq, at=time.time() - 60, data=data)


def message(run: str) -> str:
    return json.dumps({"body": run})


def put(client: "redis.Redis", run: str) -> None:
    client.lpush(names.queue("edge-1"), message(run))


def queue(client: "redis.Redis") -> list[str]:
    found: Any = client.lrange(names.queue("edge-1"), 0, -1)
    return list(found)


def words(client: "redis.Redis", kind: str) -> list[dict[str, Any]]:
    return factories.heard(client, "edge-1", kind)


def record(engine: Engine, run: str) -> Run:
    with db.session(engine, write=False) as session:
        return runs.get(session, run)


def events(engine: Engine, event: str) -> list[AuditEvent]:
    with db.session(engine, write=False) as session:
        assert audit.verify(session) is None
        return audit.events(session, event=event, after_id=0)


def test_what_waits_in_the_queue_of_a_host_that_is_away_is_cancelled_at_once(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run, other = names.new_run_id("edge-1"), names.new_run_id("edge-1")
    put(client, run)
    put(client, other)
    take_in(ingest, client, queued(run), queued(other), asked(run))
    found = record(engine, run)
    assert (found.state, found.error) == ("cancelled", {"kind": "cancelled", "message": "cancelled by bob: wrong host"})
    assert (found.cancel_requested_by, found.message) == ("bob", None)
    assert queue(client) == [message(other)]
    result: Any = client.get(names.result(run))
    assert json.loads(result)["result"]["state"] == "cancelled"
    (request,) = events(engine, "run.cancel_requested")
    assert (request.actor, request.data) == ("p:bob", {"reason": "wrong host", "state": "queued", "counts": True})
    assert [event.actor for event in events(engine, "run.cancelled")] == ["control"]


def test_what_its_host_has_taken_is_its_hosts_to_end(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    accepted, started, *_ = factories.life(run)
    take_in(ingest, client, queued(run), accepted, started, asked(run))
    assert (record(engine, run).state, record(engine, run).cancel_requested_by) == ("running", "bob")
    ended = factories.report("edge-1", Kind.RUN_CANCELLED, run=run, attempt=1, seq=3, data={"by": "bob", "begun": True})
    take_in(ingest, client, ended)
    assert record(engine, run).state == "cancelled"


def test_a_request_counts_once_and_one_that_comes_too_late_changes_nothing(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run, over = names.new_run_id("edge-1"), names.new_run_id("edge-1")
    first = asked(run, at=1_750_000_100.0)
    take_in(ingest, client, queued(run), *factories.life(run)[:2], first)
    take_in(ingest, client, first, asked(run, by="carol"))
    assert record(engine, run).cancel_requested_by == "bob"
    assert [(event.actor, event.data["counts"]) for event in events(engine, "run.cancel_requested")] == [
        ("p:bob", True),
        ("p:carol", False),
    ]
    take_in(ingest, client, queued(over), *factories.life(over, first_seq=3), asked(over))
    found = record(engine, over)
    assert (found.state, found.cancel_requested_by) == ("succeeded", None)


def test_who_wanted_the_end_is_known_also_where_the_end_is_told_first(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    ended = factories.report("edge-1", Kind.RUN_CANCELLED, run=run, attempt=1, seq=3, data={"by": "bob", "begun": True})
    take_in(ingest, client, queued(run), *factories.life(run)[:2], ended)
    take_in(ingest, client, asked(run))
    take_in(ingest, client, asked(run, by="carol"))
    found = record(engine, run)
    assert (found.state, found.cancel_requested_by) == ("cancelled", "bob")
    assert [(event.actor, event.data["counts"]) for event in events(engine, "run.cancel_requested")] == [
        ("p:bob", True),
        ("p:carol", False),
    ]


def test_requests_that_no_principal_may_make_are_refused(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    by_host = asked(run).model_copy(update={"sender": "edge-1", "epoch": 1, "seq": 1})
    nobodys, long = asked(run), asked(run, by="carol", reason="x" * 1025)
    take_in(ingest, client, by_host, nobodys, long)
    assert sorted(event.data["reason"] for event in events(engine, "report.refused")) == [
        "data do not fit",
        "data do not fit",
        "no such run",
    ]
    with db.session(engine, write=False) as session:
        assert runs.listing(session) == []


def test_a_host_that_does_not_end_a_run_is_told_again(
    ingest: Ingest, rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    long_ago = time.time() - 60
    take_in(ingest, client, queued(run), *factories.life(run)[:2], asked(run, at=long_ago))
    assert words(client, "run.cancel") == [], "who asked has told the host"
    rescue.run()
    assert words(client, "run.cancel") == [], "it is not there"
    client.set(names.presence("edge-1"), "a heartbeat")
    rescue.run()
    rescue.run()
    (word,) = words(client, "run.cancel")
    assert (word["run"], word["by"], word["reason"]) == (run, "bob", "wrong host")


def test_a_cancelled_run_that_the_broker_lost_is_sent_with_the_word_to_end_it(
    ingest: Ingest, rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    take_in(ingest, client, queued(run), asked(run))
    assert record(engine, run).state == "queued", "nobody knows whether its host has taken it"
    rescue.run()
    assert queue(client) == [message(run)]
    assert [word["run"] for word in words(client, "run.cancel")] == [run]
    rescue.run()
    assert record(engine, run).state == "queued", "another copy may have been taken before"


def test_what_a_host_gives_back_is_sent_at_once(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    back = factories.report("edge-1", Kind.RUN_HANDED_BACK, run=run, attempt=2, seq=3)
    take_in(ingest, client, queued(run), *factories.life(run)[:2], back)
    assert queue(client) == [message(run)]
    assert (record(engine, run).state, record(engine, run).attempt) == ("queued", 2)
    assert len(events(engine, "run.sent_again")) == 1


@pytest.mark.parametrize(
    ("task", "steps", "journal", "state", "sent"),
    [
        (ONCE, 1, JOURNAL, "queued", True),
        (ONCE, 2, JOURNAL, "unknown", False),
        (IDEMPOTENT, 1, JOURNAL, "queued", True),
        (IDEMPOTENT, 2, JOURNAL, "queued", True),
        (ONCE, 1, "another", "queued", False),
        (ONCE, 2, "another", "unknown", False),
        (IDEMPOTENT, 2, "another", "queued", True),
        ("of.a.package.elsewhere", 2, JOURNAL, "unknown", False),
    ],
)
def test_what_a_journal_has_forgotten_begins_again_where_that_cannot_repeat_it(  # noqa: PLR0917 - by name
    ingest: Ingest,
    engine: Engine,
    client: "redis.Redis",
    task: str,
    steps: int,
    journal: str,
    state: str,
    *,
    sent: bool,
) -> None:
    forgotten, kept = names.new_run_id("edge-1"), names.new_run_id("edge-1")
    take_in(
        ingest,
        client,
        queued(forgotten, task=task),
        queued(kept, task=task),
        *factories.life(forgotten)[:steps],
        *factories.life(kept, first_seq=1 + steps)[:steps],
    )
    take_in(ingest, client, registered(kept, journal=journal))
    assert record(engine, forgotten).state == state
    assert record(engine, kept).state == ("accepted" if steps == 1 else "running")
    assert queue(client) == ([message(forgotten)] if sent else [])
    assert [event.run_id for event in events(engine, "run.requeued")] == ([forgotten] if state == "queued" else [])
    with db.session(engine, write=False) as session:
        assert inventory.host(session, "edge-1").journal == journal
        if state == "queued":
            assert runs.attempts(session, forgotten) == []
        else:
            assert client.exists(names.result(forgotten))
            assert [each.state for each in runs.attempts(session, forgotten)] == ["unknown"]


def test_a_run_that_was_forgotten_begins_with_its_first_attempt(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    retrying = factories.report("edge-1", Kind.RUN_RETRYING, run=run, attempt=2, seq=3)
    take_in(ingest, client, queued(run, task=IDEMPOTENT), *factories.life(run)[:2], retrying, registered())
    assert (record(engine, run).state, record(engine, run).attempt) == ("queued", 1)
    take_in(ingest, client, *factories.life(run, epoch=2, first_seq=2))
    assert record(engine, run).state == "succeeded"


@pytest.mark.parametrize("lies", [True, False], ids=["in the queue", "nowhere"])
def test_of_another_journals_run_only_a_message_in_the_broker_goes_on(
    ingest: Ingest, rescue: Rescue, engine: Engine, client: "redis.Redis", *, lies: bool
) -> None:
    run = names.new_run_id("edge-1")
    take_in(ingest, client, queued(run), factories.life(run)[0])
    if lies:
        put(client, run)
    take_in(ingest, client, registered(journal="another"))
    rescue.run()
    assert record(engine, run).state == ("queued" if lies else "unknown")
    assert queue(client) == ([message(run)] if lies else [])
    if lies:
        take_in(ingest, client, *factories.life(run, epoch=2, first_seq=2))
        assert record(engine, run).state == "succeeded"


@pytest.mark.parametrize("many", [True, False], ids=["too many to say", "an older worker"])
def test_a_host_that_does_not_say_what_it_has_is_not_second_guessed(
    ingest: Ingest, engine: Engine, client: "redis.Redis", *, many: bool
) -> None:
    run = names.new_run_id("edge-1")
    take_in(ingest, client, queued(run), *factories.life(run)[:2])
    take_in(ingest, client, registered(many=True) if many else registered(journal=None))
    assert record(engine, run).state == "running"


def test_what_a_new_session_speaks_of_is_not_forgotten(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    take_in(ingest, client, queued(run), *factories.life(run)[:2])
    progressed = factories.life(run, epoch=2)[2].model_copy(update={"seq": 2})
    take_in(ingest, client, registered(), progressed)
    assert record(engine, run).state == "running"


def test_cut_off_before_it_could_attend_the_rescue_does_the_same(
    ingest: Ingest, rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    waiting, back, lost = (names.new_run_id("edge-1") for _ in range(3))
    put(client, waiting)
    handed_back = factories.report("edge-1", Kind.RUN_HANDED_BACK, run=back, attempt=2, seq=5)
    factories.push(
        client,
        *(queued(run) for run in (waiting, back, lost)),
        *factories.life(back)[:2],
        *factories.life(lost, first_seq=3)[:2],
        handed_back,
        registered(),
        asked(waiting),
    )
    ingest.step()  # and here the process dies
    rescue.run()
    assert record(engine, waiting).state == "cancelled"
    assert queue(client) == [message(back)]
    assert record(engine, lost).state == "unknown"
    assert client.exists(names.result(waiting), names.result(lost)) == 2


def test_a_run_that_a_stopping_host_put_back_is_cancelled_or_expires_in_the_queue(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    put(client, run)
    stopped = factories.report("edge-1", Kind.HOST_DEREGISTERED, seq=2)
    take_in(ingest, client, queued(run), factories.life(run)[0], stopped, asked(run))
    with db.session(engine, write=False) as session:
        assert inventory.host(session, "edge-1").signed_off_at == clock.from_unix(stopped.at)
    assert (record(engine, run).state, queue(client)) == ("cancelled", [])
