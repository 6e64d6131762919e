"""The rescue: what no host will ever tell is found and settled, once, whatever breaks in between."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import Engine
from sqlmodel import col, select

from fleet import audit, clock, db, inventory, names, runs
from fleet.contracts.reports import Kind
from fleet.keyring import Keyring
from fleet.models import AuditEvent, Run
from fleet.security import signing
from tests import factories
from tests.services.broker import Broker
from workers.control.rescue import Rescue
from workers.control.settling import Settling
from workers.control.silence import Silence
from workers.control.voice import Voice

LONG_AGO = time.time() - 3600


class Watch:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Killed(BaseException):
    """Where the process dies."""


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def lease(client: "redis.Redis") -> factories.HeldLease:
    return factories.HeldLease(client)


@pytest.fixture
def rescue(engine: Engine, client: "redis.Redis", lease: factories.HeldLease, watch: Watch) -> Rescue:
    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
    return another(engine, client, lease, watch)


def another(engine: Engine, client: "redis.Redis", lease: factories.HeldLease, watch: Watch) -> Rescue:
    return Rescue(
        engine=engine,
        client=client,
        lease=lease,
        voice=factories.voice(engine),
        silence=Silence(elapsed=watch),
        rest=0,
    )


def pushed(engine: Engine, *reports: Any, **more: Any) -> str:
    """Record a push of long ago, with what its host said since (functions of the run id); return the run's id."""
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        values = {"submitted_at": LONG_AGO, **more}
        runs.apply_many(session, [factories.queued(run, **values)])
        runs.apply_many(session, [report for told in reports for report in told(run)])
    return run


def begun(at: float) -> Any:
    return lambda run: [
        factories.report("edge-1", kind, run=run, attempt=1, at=at) for kind in (Kind.RUN_ACCEPTED, Kind.RUN_STARTED)
    ]


def accepted(run: str) -> Any:
    return factories.life(run)[:1]


def record(engine: Engine, run: str) -> Run:
    with db.session(engine, write=False) as session:
        return runs.get(session, run)


def events(engine: Engine, run: str) -> list[AuditEvent]:
    with db.session(engine, write=False) as session:
        assert audit.verify(session) is None
        return audit.events(session, run=run, after_id=0)


def told(engine: Engine, run: str) -> list[str]:
    return [event.event for event in events(engine, run)]


def message(run: str) -> str:
    return json.dumps({"body": run})


def result(client: "redis.Redis", run: str) -> Any:
    found: Any = client.get(names.result(run))
    return found and json.loads(found)["result"]


def come_online(client: "redis.Redis") -> None:
    client.set(names.presence("edge-1"), "any heartbeat")


def fall_silent(rescue: Rescue, watch: Watch, *, seconds: float = 125) -> None:
    """Let time pass while the rescue looks, as it does every few seconds."""
    for _ in range(int(seconds // 25)):
        rescue.run()
        watch.now += 25
    rescue.run()


def heard(engine: Engine, at: float) -> None:
    with db.session(engine) as session:
        inventory.host(session, "edge-1").last_seen_at = clock.from_unix(at)


def queue(client: "redis.Redis") -> list[str]:
    found: Any = client.lrange(names.queue("edge-1"), 0, -1)
    return list(found)


def test_a_message_that_the_broker_lost_is_sent_again_byte_for_byte(
    rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    run = pushed(engine)
    come_online(client)
    rescue.run()
    assert queue(client) == [message(run)]
    assert record(engine, run).sent_again_at is not None
    assert told(engine, run) == ["run.sent_again"]
    client.delete(names.queue("edge-1"))
    rescue.run()
    assert queue(client) == [], "not again within half a minute"


def test_many_lost_messages_keep_their_order(rescue: Rescue, engine: Engine, client: "redis.Redis") -> None:
    lost = [pushed(engine) for _ in range(30)]
    client.lpush(names.queue("edge-1"), "somebody else's")
    rescue.run()
    assert queue(client) == [message(run) for run in reversed(lost)] + ["somebody else's"]


@pytest.mark.parametrize("count", [1, 50], ids=["one", "many"])
def test_what_waits_in_the_queue_or_an_inbox_is_left_alone(
    rescue: Rescue, engine: Engine, client: "redis.Redis", count: int
) -> None:
    waiting, taken = [pushed(engine) for _ in range(count)], pushed(engine)
    client.lpush(names.queue("edge-1"), *map(message, waiting))
    client.set(names.epoch("edge-1"), 7)
    client.lpush(names.inbox("edge-1", 5), message(taken))
    rescue.run()
    assert client.llen(names.queue("edge-1")) == count
    assert [told(engine, run) for run in (*waiting, taken)] == [[]] * (count + 1)


def test_a_push_of_just_now_has_its_time(rescue: Rescue, engine: Engine, client: "redis.Redis") -> None:
    pushed(engine, submitted_at=time.time() - 2)
    rescue.run()
    assert queue(client) == []


def test_without_the_lease_nothing_is_touched(
    rescue: Rescue, engine: Engine, client: "redis.Redis", lease: factories.HeldLease
) -> None:
    pushed(engine)
    client.set(names.CONTROL_LEASE, "control-2")
    rescue.run()
    assert queue(client) == []


def test_a_run_that_was_given_back_is_sent_without_waiting(
    rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    def handed_back(run: str) -> Any:
        return [factories.report("edge-1", Kind.RUN_HANDED_BACK, run=run, attempt=2)]

    run = pushed(engine, begun(time.time()), handed_back, submitted_at=time.time())
    rescue.run()
    assert queue(client) == [message(run)]


def test_expired_messages_of_a_host_that_is_away_are_swept(
    rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    late, timely = pushed(engine, not_after=time.time() - 60), pushed(engine, not_after=time.time() + 60)
    old = pushed(engine, submitted_at=time.time() - 31 * 86_400)
    client.lpush(names.queue("edge-1"), *map(message, (late, timely, old)))
    rescue.run()
    assert queue(client) == [message(timely)]
    for run in (late, old):
        assert record(engine, run).state == "expired"
        assert record(engine, run).message is None
        assert told(engine, run) == ["run.expired"]
        assert result(client, run)["state"] == "expired"
    assert client.hlen(names.WITHDRAWN) == 0


def test_of_what_is_expired_and_not_in_the_queue_a_connected_host_is_asked(
    rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    run = pushed(engine, not_after=time.time() - 600)
    come_online(client)
    rescue.run()
    assert queue(client) == [message(run)], "its guard refuses it, or its journal answers for it"
    assert record(engine, run).state == "queued"


def test_of_what_is_expired_and_not_in_the_queue_of_a_host_that_is_cut_off_nothing_is_said_too_early(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    heard(engine, time.time() - 300)
    run = pushed(engine, not_after=time.time() - 120, limit_seconds=100)
    fall_silent(rescue, watch)
    assert record(engine, run).state == "queued", "it may run since its last moment"


def test_what_a_silent_host_may_have_begun_at_the_last_moment_is_unknown_in_the_end(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    heard(engine, LONG_AGO + 60)
    run = pushed(engine, not_after=time.time() - 1800, limit_seconds=100)
    fall_silent(rescue, watch)
    assert (record(engine, run).state, told(engine, run)) == ("unknown", ["run.unknown"])
    assert result(client, run)["state"] == "unknown"


def test_what_was_pushed_to_a_host_that_had_left_before_expires(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    heard(engine, LONG_AGO - 60)
    run = pushed(engine, not_after=time.time() - 30)
    fall_silent(rescue, watch)
    assert record(engine, run).state == "expired"


def test_a_run_of_a_host_that_stays_away_is_unknown_once_its_time_is_over(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    over = pushed(engine, begun(LONG_AGO), limit_seconds=10)
    runs_on = pushed(engine, begun(LONG_AGO), limit_seconds=86_400)
    waits = pushed(engine, accepted)
    fall_silent(rescue, watch, seconds=100)
    assert record(engine, over).state == "running", "not before the host is offline"
    fall_silent(rescue, watch)
    assert [record(engine, run).state for run in (over, runs_on, waits)] == ["unknown", "running", "accepted"]
    assert told(engine, over) == ["run.unknown"]
    assert result(client, over)["state"] == "unknown"
    with db.session(engine, write=False) as session:
        assert [each.state for each in runs.attempts(session, over)] == ["unknown"]


def test_retries_and_their_waits_belong_to_a_runs_time(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    retry = {"retry": {"max_retries": 5, "backoff_max_seconds": 3600}}
    text = json.dumps({"headers": {"fleet": retry}})
    waits = pushed(engine, begun(LONG_AGO), limit_seconds=10, max_retries=5, message=text)
    short = pushed(engine, begun(LONG_AGO), limit_seconds=10, max_retries=5, message=text.replace("3600", "9"))
    fall_silent(rescue, watch)
    assert [record(engine, run).state for run in (waits, short)] == ["running", "unknown"]


def test_reports_that_wait_to_be_read_come_first(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    run = pushed(engine, begun(LONG_AGO), limit_seconds=10)
    client.lpush(names.reports("edge-1"), "not read yet")
    fall_silent(rescue, watch)
    assert record(engine, run).state == "running"


@pytest.mark.parametrize("what", ["the lease", "a pause", "a sign of life"])
def test_silence_that_nobody_watched_proves_nothing(  # noqa: PLR0917 - pytest gives them by name
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch, lease: factories.HeldLease, what: str
) -> None:
    run = pushed(engine, begun(LONG_AGO), limit_seconds=10)
    fall_silent(rescue, watch, seconds=100)
    if what == "the lease":
        client.set(names.CONTROL_LEASE, "control-2")
        rescue.run()
        client.set(names.CONTROL_LEASE, lease.token)
    elif what == "a pause":
        watch.now += 600
    else:
        come_online(client)
        rescue.run()
        client.delete(names.presence("edge-1"))
    fall_silent(rescue, watch, seconds=100)
    assert record(engine, run).state == "running"
    fall_silent(rescue, watch, seconds=50)
    assert record(engine, run).state == "unknown"


def test_after_a_restart_of_the_broker_hosts_have_their_time_to_come_back(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch, any_broker: Broker
) -> None:
    run = pushed(engine, begun(LONG_AGO), limit_seconds=10)
    fall_silent(rescue, watch, seconds=100)
    any_broker.stop(kill=True)
    with pytest.raises(redis.RedisError):
        rescue.run()
    any_broker.start()
    client.set(names.CONTROL_LEASE, "control-1")
    fall_silent(rescue, watch, seconds=100)
    assert record(engine, run).state == "running"


def test_a_late_report_settles_a_run_that_was_given_up(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    run = pushed(engine, begun(LONG_AGO), limit_seconds=10)
    fall_silent(rescue, watch)
    assert record(engine, run).state == "unknown"
    with db.session(engine) as session:
        applied = runs.apply_many(session, [factories.life(run)[3]])
    assert applied.settled
    assert record(engine, run).state == "succeeded"


def test_a_result_that_a_host_wrote_is_never_replaced(
    rescue: Rescue, engine: Engine, client: "redis.Redis", watch: Watch
) -> None:
    run = pushed(engine, begun(LONG_AGO), limit_seconds=10)
    client.set(names.result(run), json.dumps({"result": {"the host's": "own"}}))
    fall_silent(rescue, watch)
    assert result(client, run) == {"the host's": "own"}


def test_who_waits_for_the_result_hears_of_it(rescue: Rescue, engine: Engine, client: "redis.Redis") -> None:
    run = pushed(engine, not_after=time.time() - 60)
    client.lpush(names.queue("edge-1"), message(run))
    pubsub: Any = client.pubsub
    with pubsub(ignore_subscribe_messages=True) as waiting:
        waiting.subscribe(names.result(run), names.WATCH)
        waiting.get_message(timeout=30)
        waiting.get_message(timeout=30)
        rescue.run()
        first, second = waiting.get_message(timeout=30), waiting.get_message(timeout=30)
    assert json.loads(first["data"])["result"]["state"] == "expired"
    assert json.loads(second["data"])["event"] == "run.expired"


@pytest.mark.parametrize("place", ["before the ledger", "before the result"])
def test_killed_between_broker_and_ledger_the_next_one_ends_the_run_alike(  # noqa: PLR0917 - by name
    rescue: Rescue,
    engine: Engine,
    client: "redis.Redis",
    watch: Watch,
    lease: factories.HeldLease,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    rescue.run()  # has nothing to resume any more
    run = pushed(engine, not_after=time.time() - 60)
    client.lpush(names.queue("edge-1"), message(run))

    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Settling, "settle" if place == "before the ledger" else "deliver", dies)
        with pytest.raises(Killed):
            rescue.run()
    assert queue(client) == []
    assert result(client, run) is None
    another(engine, client, lease, watch).run()
    assert record(engine, run).state == "expired"
    assert told(engine, run) == ["run.expired"]
    assert result(client, run)["state"] == "expired"
    assert client.hlen(names.WITHDRAWN) == 0


def test_killed_between_ledger_and_broker_a_message_is_sent_by_the_next_one(  # noqa: PLR0917 - by name
    rescue: Rescue,
    engine: Engine,
    client: "redis.Redis",
    watch: Watch,
    lease: factories.HeldLease,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = pushed(engine)
    commit = runs.mark_sent

    def commits_and_dies(*given: Any, **more: Any) -> Any:
        commit(*given, **more)
        given[0].commit()
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(runs, "mark_sent", commits_and_dies)
        with pytest.raises(Killed):
            rescue.run()
    assert queue(client) == []
    with db.session(engine) as session:
        found = runs.get(session, run)
        assert found.sent_again_at
        found.sent_again_at -= timedelta(seconds=31)
    another(engine, client, lease, watch).run()
    assert queue(client) == [message(run)]


def test_a_withdrawal_leaves_others_messages_where_they_are(
    rescue: Rescue, engine: Engine, client: "redis.Redis"
) -> None:
    runs_ = [pushed(engine, not_after=time.time() - 60) for _ in range(3)]
    client.lpush(names.queue("edge-1"), "a", message(runs_[0]), "b", message(runs_[1]), message(runs_[2]), "c")
    rescue.run()
    assert queue(client) == ["c", "b", "a"]


def test_a_long_backlog_is_looked_at_over_several_turns(
    engine: Engine, client: "redis.Redis", lease: factories.HeldLease, watch: Watch, rescue: Rescue
) -> None:
    late = [pushed(engine, not_after=time.time() - 60) for _ in range(450)]
    client.lpush(names.queue("edge-1"), *map(message, late))
    hurried = Rescue(
        engine=engine,
        client=client,
        lease=lease,
        voice=factories.voice(engine),
        silence=Silence(elapsed=watch),
        budget_seconds=0,
        rest=0,
    )
    left = []
    for _ in range(3):
        hurried.run()
        left.append(client.llen(names.queue("edge-1")))
    assert left == [250, 50, 0]
    with db.session(engine, write=False) as session:
        query = select(Run.id).where(col(Run.state) == "expired")
        assert len(session.exec(query).all()) == 450


@pytest.fixture
def unlisted(engine: Engine, rescue: Rescue) -> None:
    """The host writes no heartbeats."""
    with db.session(engine) as session:
        inventory.register(session, "edge-1", facts=None, unlisted=True, at=clock.from_unix(LONG_AGO))


def look_for(rescue: Rescue, watch: Watch, minutes: float, *, each: Callable[[], object]) -> None:
    """Have the rescue look every 20 s, and do something in between."""
    for _ in range(int(minutes * 3)):
        rescue.run()
        each()
        watch.now += 20


@pytest.mark.usefixtures("unlisted")
def test_a_run_of_an_unlisted_host_that_answers_is_never_taken_for_lost(
    engine: Engine, client: "redis.Redis", watch: Watch, rescue: Rescue
) -> None:
    run = pushed(engine, begun(LONG_AGO), limit_seconds=60)
    answers: list[int] = []
    look_for(rescue, watch, 10, each=lambda: answers.append(client.delete(names.control("edge-1"))))
    assert record(engine, run).state == "running"
    assert 8 <= sum(answers) <= 20, "it is asked every half minute or so, and not at every look"


@pytest.mark.usefixtures("unlisted")
def test_a_run_of_an_unlisted_host_that_does_not_answer_is_unknown_once_its_time_is_over(
    engine: Engine, client: "redis.Redis", watch: Watch, rescue: Rescue
) -> None:
    run = pushed(engine, begun(LONG_AGO), limit_seconds=60)
    look_for(rescue, watch, 2, each=lambda: None)
    assert record(engine, run).state == "running"
    look_for(rescue, watch, 3, each=lambda: None)
    assert record(engine, run).state == "unknown"
    assert client.llen(names.control("edge-1")) == 1, "one question lies there, however often nobody has answered"


@pytest.mark.usefixtures("unlisted")
def test_an_unlisted_host_without_open_runs_is_asked_nothing(
    client: "redis.Redis", watch: Watch, rescue: Rescue
) -> None:
    look_for(rescue, watch, 3, each=lambda: None)
    assert client.llen(names.control("edge-1")) == 0


@pytest.mark.usefixtures("unlisted")
def test_of_an_unlisted_host_nobody_says_that_it_had_left_before_a_message_that_was_sent_again(
    engine: Engine, client: "redis.Redis", watch: Watch, rescue: Rescue
) -> None:
    run = pushed(engine, not_after=LONG_AGO + 60)
    with db.session(engine) as session:
        found = session.get_one(Run, run)
        found.sent_again_at = clock.from_unix(LONG_AGO + 30)
        session.add(found)
    client.lpush(names.queue("edge-1"), message(run))
    look_for(rescue, watch, 5, each=lambda: None)
    assert record(engine, run).state == "unknown", "an earlier copy may have been taken"


@pytest.mark.parametrize(
    "odd",
    [
        {"not_before": datetime(9999, 12, 20, tzinfo=UTC)},
        {"not_after": datetime(9999, 12, 30, tzinfo=UTC)},
        {"limit_seconds": 1e300},
        {"max_retries": 2**31 - 1},
        {"message": "no JSON"},
        {"progress": {"approve_before": "x"}},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_what_is_recorded_of_one_run_holds_no_other_up(
    engine: Engine, client: "redis.Redis", rescue: Rescue, odd: dict[str, Any]
) -> None:
    """Reports are held to bounds; what was recorded by an older control plane may lie there still."""
    for state in (accepted, begun(LONG_AGO)):
        with db.session(engine) as session:
            row = session.get(Run, pushed(engine, state))
            assert row is not None
            row.sqlmodel_update(odd)
            session.add(row)
    lost = pushed(engine)
    rescue.run()
    assert client.lrange(names.queue("edge-1"), 0, -1) == [message(lost)]


def signed_under(key: str, run: str) -> str:
    """Return a message of alice's, whose credential that key of a fleet has issued."""
    message: dict[str, Any] = {
        "headers": {"id": run, "task": "fleet.host.ping"},
        "body": "[[], {}, {}]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    credential = Keyring([factories.key(key)]).issue(factories.principal("alice"))
    signing.sign_message(message, factories.key("p:alice"), credential)
    return json.dumps(message)


def test_a_lost_message_that_no_host_would_believe_any_more_is_not_sent_again_and_again(
    engine: Engine, client: "redis.Redis", lease: factories.HeldLease, watch: Watch
) -> None:
    """It waited while the fleet's key changed, and the former one was retired: each host refuses it as nobody's."""
    with db.session(engine) as session:
        factories.found(session)
        factories.enroll(session, "edge-1")
    rescue = Rescue(
        engine=engine,
        client=client,
        lease=lease,
        voice=Voice(engine, factories.HeldKeyrings()),
        silence=Silence(elapsed=watch),
        rest=0,
    )
    messages = [signed_under("fleet", "a"), signed_under("former", "b"), "{}", "no JSON"]
    lost = [pushed(engine, message=each) for each in messages]
    rescue.run()
    assert client.lrange(names.queue("edge-1"), 0, -1) == messages[:1]
    assert [record(engine, run).state for run in lost] == ["queued", "unknown", "unknown", "unknown"]
    error = record(engine, lost[1]).error
    assert error is not None
    assert "a key of the fleet's that is retired" in error["message"]
