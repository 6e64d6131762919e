"""Ingestion: from the broker's lists into the database, once each, whatever breaks in between."""

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import reduce
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from fleet import audit, canonical, db, inventory, names, runs
from fleet.contracts.reports import Kind, Report
from fleet.models import AuditEvent
from fleet.security import signing
from fleet.security.keys import Purpose
from tests import factories
from tests.services.broker import Broker
from workers.control import reading, recording
from workers.control.batches import Batch
from workers.control.gaps import Gaps
from workers.control.ingest import Ingest


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@pytest.fixture
def ingest(engine: Engine, client: "redis.Redis") -> Ingest:
    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
        factories.enroll(session, "edge-2")
        factories.introduce(session, "alice")
    return made(engine, client)


def made(engine: Engine, client: "redis.Redis", *, token: str = "control-1") -> Ingest:
    lease = factories.HeldLease(client, token)
    return Ingest(engine=engine, client=client, lease=lease, voice=factories.voice(engine))


def events(engine: Engine, event: str | None = None) -> list[AuditEvent]:
    with db.session(engine, write=False) as session:
        assert audit.verify(session) is None
        return audit.events(session, event=event, after_id=0, limit=10_000)


def told(engine: Engine) -> list[str]:
    return [event.event for event in events(engine)]


def acknowledged(client: "redis.Redis", host: str) -> list[tuple[int, int]]:
    found = factories.heard(client, host)
    assert {(each["v"], each["kind"]) for each in found} <= {(1, "reports.acknowledged")}
    return [(each["epoch"], each["seq"]) for each in found]


def test_a_run_travels_from_the_lists_into_ledger_and_audit(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    factories.push(client, factories.queued(run), *factories.life(run))
    assert ingest.step()
    assert not ingest.step()
    with db.session(engine, write=False) as session:
        assert runs.get(session, run).state == "succeeded"
    assert told(engine) == ["run.queued", "run.accepted", "run.started", "run.progressed", "run.succeeded"]
    first, *_, last = events(engine)
    assert (first.actor, first.host_id, first.run_id) == ("p:alice", "edge-1", run)
    assert "message" not in first.data
    assert "arguments" not in first.data
    assert (last.actor, last.epoch, last.seq, last.data["attempt"]) == ("edge-1", 1, 4, 1)
    assert acknowledged(client, "edge-1") == [(1, 4)]
    assert client.llen(names.reports("edge-1")) == client.llen(names.reports("p:alice")) == 0


def test_a_host_may_be_read_before_its_principal(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    factories.push(client, *factories.life(run))
    ingest.step()
    factories.push(client, factories.queued(run))
    ingest.step()
    with db.session(engine, write=False) as session:
        found = runs.get(session, run)
        assert (found.state, found.task, found.message) == ("succeeded", "fleet.containers.restart", None)


def test_killed_between_commit_and_removal_nothing_is_taken_in_twice(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    hello = factories.report(
        "edge-1", Kind.HOST_REGISTERED, epoch=2, seq=1, data={"facts": factories.facts().model_dump()}
    )
    factories.push(client, factories.queued(run), *factories.life(run), hello)
    ingest.news.scan()
    ingest.record(ingest.take())  # and here the process dies
    before = [event.model_dump() for event in events(engine)]
    successor = made(engine, client, token="control-2")
    successor.news.scan()
    assert successor.step()
    assert [event.model_dump() for event in events(engine)] == before
    assert acknowledged(client, "edge-1") == [(1, 4), (2, 1)]
    assert client.llen(names.reports("edge-1")) == client.llen(names.reports("p:alice")) == 0


def test_nothing_is_removed_once_the_lease_is_anothers(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    factories.push(client, *factories.life(run))
    ingest.news.scan()
    batches = ingest.take()
    recorded = ingest.record(batches)
    client.set(names.CONTROL_LEASE, "control-2")
    assert not ingest.release(batches, recorded)
    assert client.llen(names.reports("edge-1")) == 4
    assert acknowledged(client, "edge-1") == []


def test_reports_repeated_by_the_outbox_count_once(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    life = factories.life(names.new_run_id("edge-1"))
    factories.push(client, *life[:3], *life[1:], *life)
    ingest.step()
    assert told(engine) == ["run.accepted", "run.started", "run.progressed", "run.succeeded"]


def test_a_late_session_is_taken_in_beside_the_newer_one(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    life = factories.life(names.new_run_id("edge-1"))
    newer = factories.report("edge-1", Kind.HOST_DEREGISTERED, epoch=2, seq=1)
    factories.push(client, *life[:2], newer, *life[2:])
    ingest.step()
    assert told(engine)[-2:] == ["run.progressed", "run.succeeded"]
    assert events(engine, "report.missing") == []


def test_what_is_missing_is_asked_for_and_nothing_after_it_is_taken_in_before_it_has_come(
    ingest: Ingest, engine: Engine, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.control.gaps._ASK_AGAIN", timedelta(hours=1))  # however long the test takes
    life = factories.life(names.new_run_id("edge-1"))
    factories.push(client, life[0], life[3])
    ingest.step()
    assert told(engine) == ["run.accepted"]
    acknowledgement, asked = factories.heard(client, "edge-1")
    assert (asked["kind"], asked["epoch"], asked["seq"]) == ("reports.missing", 1, 2)
    assert acknowledgement["seq"] == 1
    factories.push(client, life[3])
    ingest.step()
    assert client.llen(names.control("edge-1")) == 2, "the host is given time to answer"
    factories.push(client, *life[1:])
    ingest.step()
    assert told(engine) == ["run.accepted", "run.started", "run.progressed", "run.succeeded"]


def test_a_gap_that_its_host_cannot_fill_is_recorded_with_its_range_and_stops_nothing(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    ingest._gaps = Gaps(patience=timedelta(0))
    life = factories.life(names.new_run_id("edge-1"), first_seq=4)
    for _ in range(3):  # noticed, given up, and the same with the next one
        factories.push(client, life[0], life[3])
        ingest.step()
    assert told(engine) == ["report.missing", "run.accepted", "report.missing", "run.succeeded"]
    assert [event.data for event in events(engine, "report.missing")] == [
        {"first": 1, "last": 3},
        {"first": 5, "last": 6},
    ]
    *_, last = factories.heard(client, "edge-1")
    assert (last["kind"], last["seq"]) == ("reports.acknowledged", 7)


OTHER = names.new_run_id("edge-2")
MINE = names.new_run_id("edge-1")
NOT_SIGNED = "not signed by its sender"
FORGED = factories.life(OTHER)[0].model_copy(update={"sender": "edge-1"})


def odd(report: Report, **data: Any) -> str:
    return report.model_copy(update={"data": {**report.data, **data}}).model_dump_json()


@pytest.mark.parametrize(
    ("sender", "text", "reason"),
    [
        ("edge-1", "not even JSON", "not a report"),
        ("edge-1", "{" * 100_000, "not a report"),
        ("edge-1", '{"sender":"edge-1","kind":"host.exploded","epoch":1,"seq":1,"at":1}', "not a report"),
        ("edge-1", '{"sender":"edge-1","kind":"host.deregistered","epoch":1,"seq":1e30,"at":1}', "not a report"),
        ("edge-1", '{"sender":"edge-1","kind":"host.deregistered","epoch":1,"seq":1,"at":1e300}', "data do not fit"),
        ("edge-1", '{"sender":"edge-1","kind":"host.deregistered","epoch":1,"seq":1,"at":NaN}', "data do not fit"),
        ("edge-1", '{"sender":"edge-1","kind":"host.deregistered","at":1}', "data do not fit"),
        ("edge-1", '{"sender":"edge-1","kind":"host.registered","epoch":1,"seq":1,"at":1}', "data do not fit"),
        ("edge-1", factories.life(OTHER)[0].model_dump_json(), "speaks for another sender"),
        ("edge-1", FORGED.model_dump_json(), "data do not fit"),
        (
            "edge-1",
            factories.queued(MINE).model_copy(update={"sender": "edge-1", "seq": 1}).model_dump_json(),
            "data do not fit",
        ),
        (
            "p:alice",
            factories.queued(MINE, by="mallory").model_copy(update={"sender": "p:alice"}).model_dump_json(),
            "data do not fit",
        ),
        ("p:alice", factories.queued(MINE, host="edge-2").model_dump_json(), "data do not fit"),
        *(
            ("p:alice", odd(factories.queued(MINE), **data), "data do not fit")
            for data in (
                {"not_before": 253402041600.0},
                {"limit_seconds": "inf"},
                {"limit_seconds": "nan"},
                {"limit_seconds": 1e12},
                {"max_retries": 2**31 - 1},
                {"backoff_max_seconds": 1e300},
                {"metadata": {"x": reduce(lambda inner, _: {"a": inner}, range(70), {})}},
            )
        ),
        (
            "p:alice",
            factories.life(MINE)[3].model_copy(update={"sender": "p:alice"}).model_dump_json(),
            "data do not fit",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_what_cannot_be_believed_is_refused_and_the_rest_goes_on(  # noqa: PLR0917 - pytest gives them by name
    ingest: Ingest, engine: Engine, client: "redis.Redis", sender: str, text: str, reason: str
) -> None:
    """Its sender has signed it all right: whoever takes a host over has its key as well."""
    good = names.new_run_id("edge-2")
    push = factories.queued(good)
    beside = push if sender == push.sender else factories.report(sender, Kind.HOST_DEREGISTERED, epoch=7)
    factories.send_raw(client, sender, factories.sign(sender, text, beside.model_dump_json()))
    factories.push(client, push, *factories.life(good))
    while ingest.step():
        pass
    (refusal,) = events(engine, "report.refused")
    assert (refusal.actor, refusal.data["reason"], refusal.data["sender"]) == ("control", reason, sender)
    assert refusal.data["size"] == len(text)
    assert beside.kind.value in told(engine), "what is signed together is judged one by one"
    with db.session(engine, write=False) as session:
        assert [run.id for run in runs.listing(session)] == [good]
        assert runs.get(session, good).state == "succeeded"
    assert client.llen(names.reports(sender)) == 0


ACCEPTED, STARTED, *_ = (each.model_dump_json() for each in factories.life(MINE))
SIGNED = factories.sign("edge-1", ACCEPTED, STARTED)
SIGNATURE = json.loads(SIGNED)["signature"]


def bundle(*reports: str, signature: str = SIGNATURE) -> str:
    return json.dumps({"reports": reports, "signature": signature})


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (ACCEPTED, NOT_SIGNED),
        (b"\xff\xfe not even text", NOT_SIGNED),
        ("{" * 100_000, NOT_SIGNED),
        (b" " * (reading.LARGEST_ITEM + 1), "too large"),
        (bundle(ACCEPTED, STARTED.replace("run.started", "run.succeeded")), NOT_SIGNED),
        (bundle(ACCEPTED), NOT_SIGNED),
        (bundle(STARTED, ACCEPTED), NOT_SIGNED),
        (bundle(ACCEPTED, STARTED, STARTED), NOT_SIGNED),
        (bundle(), NOT_SIGNED),
        (bundle(ACCEPTED, STARTED, signature=""), NOT_SIGNED),
        (bundle(ACCEPTED, STARTED, signature=SIGNATURE + "="), NOT_SIGNED),
        (json.dumps({**json.loads(SIGNED), "key": factories.key("edge-1").public}), NOT_SIGNED),
        (signing.sign_reports("edge-1", [ACCEPTED, STARTED], factories.key("edge-2")), NOT_SIGNED),
        (signing.sign_reports("edge-2", [ACCEPTED, STARTED], factories.key("edge-1")), NOT_SIGNED),
        (
            bundle(
                ACCEPTED,
                signature=factories.key("edge-1").sign(Purpose.CONTROL, canonical.encode(["edge-1", ACCEPTED])),
            ),
            NOT_SIGNED,
        ),
    ],
    ids=[
        "bare",
        "no text",
        "no JSON",
        "too large",
        "changed",
        "cut",
        "turned round",
        "repeated",
        "empty",
        "stripped",
        "spelt otherwise",
        "with its own key",
        "by another's key",
        "for another's list",
        "for another purpose",
    ],
)
def test_what_its_sender_has_not_signed_moves_nothing(
    ingest: Ingest, engine: Engine, client: "redis.Redis", item: str | bytes, reason: str
) -> None:
    factories.send_raw(client, "edge-1", item)
    good = names.new_run_id("edge-2")
    factories.push(client, factories.queued(good), *factories.life(good))
    while ingest.step():
        pass
    (refusal,) = events(engine, "report.refused")
    assert (refusal.actor, refusal.host_id, refusal.data["reason"]) == ("control", "edge-1", reason)
    assert refusal.data["size"] == len(item)
    assert acknowledged(client, "edge-1") == [], "nobody can say which of its numbers that was"
    with db.session(engine, write=False) as session:
        assert [(run.id, run.state) for run in runs.listing(session)] == [(good, "succeeded")]
    assert client.llen(names.reports("edge-1")) == 0
    factories.send_raw(client, "edge-1", SIGNED)
    ingest.step()
    assert acknowledged(client, "edge-1") == [(1, 2)]


def test_of_a_principal_that_is_not_on_record_nothing_is_believed(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    factories.push(client, factories.queued(MINE, by="mallory"))
    ingest.step()
    (refusal,) = events(engine)
    assert (refusal.event, refusal.data["sender"], refusal.data["reason"]) == (
        "report.refused",
        "p:mallory",
        NOT_SIGNED,
    )


def test_reports_by_the_key_that_a_host_changes_to_count_as_well(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    with db.session(engine) as session:
        inventory.offer_key(session, "edge-1", key=factories.key("the next").public, broker_hash="ab" * 32)
    item = signing.sign_reports("edge-1", [STARTED], factories.key("the next"))
    factories.send_raw(client, "edge-1", factories.sign("edge-1", ACCEPTED))
    factories.send_raw(client, "edge-1", item)
    ingest.step()
    assert told(engine) == ["run.accepted", "run.started"]


def test_a_kind_of_a_newer_version_keeps_its_number(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    first, second, *_ = factories.life(names.new_run_id("edge-1"))
    novel = json.dumps({**json.loads(second.model_dump_json()), "kind": "run.teleported"})
    factories.send_raw(client, "edge-1", factories.sign("edge-1", novel.replace('"seq": 2', '"seq": 1')))
    factories.push(client, first.model_copy(update={"seq": 2}))
    ingest.step()
    assert sorted(told(engine)) == ["report.refused", "run.accepted"]
    assert acknowledged(client, "edge-1") == [(1, 2)]


def test_a_flood_of_rubbish_leaves_a_bounded_trace(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    client.lpush(names.reports("edge-1"), *(f"rubbish {index}" for index in range(400)))
    client.sadd(names.REPORTS_DIRTY, "edge-1", "Not A Sender", b"\xff", "p:")
    ingest.step()
    refusals = events(engine, "report.refused")
    assert len(refusals) == 12
    assert refusals[-1].data == {"sender": "edge-1", "reason": "more of the kind", "count": 390}
    assert refusals[0].data["count"] == 3


def test_a_host_that_is_not_enrolled_is_not_believed(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    factories.push(client, *factories.life(names.new_run_id("stranger")))
    ingest.step()
    (refusal,) = events(engine)
    assert (refusal.event, refusal.host_id) == ("report.refused", "stranger")
    assert refusal.data == {"reason": "the host is not enrolled", "count": 4}
    assert client.llen(names.reports("stranger")) == client.llen(names.control("stranger")) == 0


def test_what_one_item_does_to_the_database_harms_no_other(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    with engine.begin() as connection:  # any fault that only the database can find
        connection.execute(text("CREATE UNIQUE INDEX one_of_a_kind ON run (description)"))
    good, bad = names.new_run_id("edge-1"), names.new_run_id("edge-2")
    factories.push(client, factories.queued(good), factories.queued(bad), *factories.life(good))
    ingest.step()
    with db.session(engine, write=False) as session:
        assert runs.get(session, good).state == "succeeded"
    (refusal,) = events(engine, "report.refused")
    assert refusal.data["reason"] == "cannot be stored"
    assert acknowledged(client, "edge-1") == [(1, 4)]
    assert client.llen(names.reports("p:alice")) == 0


def test_what_one_report_does_to_the_database_harms_none_that_is_signed_with_it(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    with engine.begin() as connection:  # as above
        connection.execute(text("CREATE UNIQUE INDEX one_of_a_kind ON host (registered_at)"))
    hello = {"facts": factories.facts().model_dump()}
    factories.push(client, factories.report("edge-2", Kind.HOST_REGISTERED, data=hello))
    ingest.step()
    run = names.new_run_id("edge-1")
    bad = factories.report("edge-1", Kind.HOST_REGISTERED, seq=3, data=hello)
    accepted, started, _progressed, succeeded = factories.life(run)
    factories.send_raw(client, "edge-1", factories.signed(accepted, started, bad, succeeded))
    ingest.step()
    with db.session(engine, write=False) as session:
        assert runs.get(session, run).state == "succeeded"
    (refusal,) = events(engine, "report.refused")
    assert (refusal.data["reason"], refusal.epoch, refusal.seq) == ("cannot be stored", 1, 3)
    assert acknowledged(client, "edge-1") == [(1, 4)]


def test_registration_and_inventory_reach_the_tables(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    web = factories.container("web").model_dump(mode="json")
    reports: list[tuple[Kind, dict[str, Any]]] = [
        (Kind.HOST_REGISTERED, {"facts": factories.facts().model_dump(), "version": "0.1.0"}),
        (Kind.INVENTORY_SYNCED, {"containers": [web, factories.container("db").model_dump(mode="json")]}),
        (Kind.INVENTORY_SYNCED, {"containers": [web, factories.container("db").model_dump(mode="json")]}),
        (
            Kind.INVENTORY_CHANGED,
            {"changed": [{**web, "state": "exited"}], "removed": [factories.container("db").docker_id]},
        ),
        (Kind.MESSAGE_REFUSED, {"reason": "not_json", "detail": "", "size": 3}),
        (Kind.HOST_DEREGISTERED, {}),
    ]
    sent = [factories.report("edge-1", kind, seq=seq, data=data) for seq, (kind, data) in enumerate(reports, 1)]
    factories.push(client, *sent)
    ingest.step()
    with db.session(engine, write=False) as session:
        host = inventory.host(session, "edge-1")
        assert host.facts["hostname"] == "edge-1.example"
        assert host.registered_at
        assert host.signed_off_at
        assert [(each.name, each.state) for each in inventory.containers(session)] == [("web", "exited")]
    found = events(engine)
    assert [event.event for event in found] == [
        "host.registered",
        "inventory.synced",
        "inventory.changed",
        "message.refused",
        "host.deregistered",
    ]
    assert found[1].data == {"added": ["db", "web"], "changed": [], "removed": []}
    assert found[2].data == {"added": [], "changed": ["web"], "removed": ["db"]}


def test_large_data_leave_their_digest_in_the_audit(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    failed = factories.report("edge-1", Kind.RUN_FAILED, run=run, data={"kind": "x", "message": "m" * 100_000})
    factories.push(client, failed)
    ingest.step()
    (event,) = events(engine)
    assert event.data["truncated"]
    assert event.data["size"] > 100_000
    with db.session(engine, write=False) as session:
        error = runs.get(session, run).error
        assert error
        assert len(error["message"]) == 100_000


def test_a_long_backlog_does_not_keep_others_waiting(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    for index in range(300):
        first = factories.life(names.new_run_id("edge-1"), first_seq=1 + 4 * index)
        client.lpush(names.reports("edge-1"), *map(factories.signed, first))
    client.sadd(names.REPORTS_DIRTY, "edge-1")
    assert ingest.step()
    factories.push(client, factories.life(names.new_run_id("edge-2"))[0])
    assert ingest.step()
    assert [event.host_id for event in events(engine)].count("edge-2") == 1
    while ingest.step():
        pass
    assert len(events(engine)) == 1_201
    assert acknowledged(client, "edge-1")[-1] == (1, 1_200)


def test_watchers_get_every_event_after_it_is_committed(ingest: Ingest, engine: Engine, client: "redis.Redis") -> None:
    pubsub: Any = client.pubsub
    with pubsub(ignore_subscribe_messages=True) as watcher:
        watcher.subscribe(names.WATCH)
        watcher.get_message(timeout=30)  # the subscription's own
        factories.push(client, *factories.life(names.new_run_id("edge-1")))
        ingest.step()
        heard: list[dict[str, Any]] = []
        while len(heard) < 4:
            message = watcher.get_message(timeout=30)
            assert message is not None
            heard.append(json.loads(message["data"]))
    assert heard == [audit.to_wire(event) for event in events(engine)]


def test_a_lost_mark_is_made_good_by_looking_at_every_list(
    ingest: Ingest, engine: Engine, client: "redis.Redis"
) -> None:
    run = names.new_run_id("edge-1")
    factories.push(client, factories.queued(run), *factories.life(run))
    client.delete(names.REPORTS_DIRTY)
    ingest.news.sweep()
    assert ingest.step()
    assert "run.queued" not in told(engine), "a principal that was never heard of is found by the full look only"
    ingest.news.scan()
    assert ingest.step()
    factories.push(client, factories.queued(names.new_run_id("edge-1")))
    client.delete(names.REPORTS_DIRTY)
    ingest.news.sweep()
    assert ingest.step(), "now the principal is known"


def test_a_hosts_report_that_cannot_be_stored_is_acknowledged_all_the_same(ingest: Ingest, engine: Engine) -> None:
    """It is on record as refused; the host would keep it for ever else, were it the last of its session."""
    *_, last = factories.life(names.new_run_id("edge-1"))
    with db.session(engine) as session:
        recorded = recording.refuse(session, Batch("edge-1", [factories.signed(last).encode()]), "cannot be stored")
    assert recorded.taken_in == {"edge-1": {last.epoch: last.seq}}
