"""The audit: one chain, the same on both databases."""

import hashlib
import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, text

from fleet import audit, db
from fleet.models import AuditEvent

AWKWARD = {
    "n": 1.0,
    "big": 1e16,
    "small": 1e-7,
    "third": 1 / 3,
    "text": "ü\x00\U0001f600",
    "nested": [{"b": None, "a": True}],
}


def test_every_row_is_chained_and_verifies_after_a_trip_through_the_database(engine: Engine) -> None:
    elsewhere = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    for _ in range(2):
        with db.session(engine) as session:
            audit.record(session, event="token.created", actor="p:alice", data=AWKWARD, occurred_at=elsewhere)
            audit.record_many(session, [audit.Entry(event="run.queued", actor="p:alice", run_id="x")] * 3)
    with db.session(engine) as session:
        found = audit.events(session, after_id=0)
        assert [event.id for event in found] == list(range(1, 9))
        assert found[0].previous_hash == audit.GENESIS
        assert all(after.previous_hash == before.hash for before, after in itertools.pairwise(found))
        assert audit.verify(session) is None


def test_the_canonical_row_is_what_the_documentation_says() -> None:
    moment = datetime(2030, 1, 31, 12, tzinfo=UTC)
    row = AuditEvent(
        id=1,
        recorded_at=moment,
        occurred_at=moment,
        event="host.enrolled",
        actor="control",
        host_id="edge-1",
        data={"a": 1},
        previous_hash=audit.GENESIS,
        hash="",
    ).model_dump()
    canonical = (
        b'{"actor":"control","data":{"a":1},"epoch":0,"event":"host.enrolled","host_id":"edge-1","id":1,'
        b'"occurred_at":"2030-01-31T12:00:00.000000+00:00","recorded_at":"2030-01-31T12:00:00.000000+00:00",'
        b'"run_id":null,"seq":0}'
    )
    assert audit.chain(row) == hashlib.sha256(bytes(32) + canonical).hexdigest()


@pytest.mark.parametrize("column", ["actor", "data", "recorded_at", "run_id"])
def test_a_changed_row_is_found(engine: Engine, backend: str, column: str) -> None:
    with db.session(engine) as session:
        audit.record_many(session, [audit.Entry(event="run.queued", actor="p:alice", run_id="x")] * 5)
    value = {
        "data": "'[NaN]'" if backend == "sqlite" else "'[2]'",
        "recorded_at": "'2020-01-01 00:00:00.000000+00'",
    }.get(column, "'mallory'")
    if backend == "sqlite":
        value = value.replace("+00", "")
    with engine.begin() as connection:
        drop = "DROP TRIGGER audit_event_refuse_update"
        if backend == "postgresql":
            drop = "ALTER TABLE audit_event DISABLE TRIGGER ALL"
        connection.execute(text(drop))
        connection.execute(text(f"UPDATE audit_event SET {column} = {value} WHERE id = 3"))
    with db.session(engine) as session:
        assert audit.verify(session) == 3


def test_events_are_filtered_and_come_oldest_first(engine: Engine) -> None:
    with db.session(engine) as session:
        for index in range(6):
            audit.record(
                session,
                event="run.started" if index % 2 else "run.accepted",
                actor=f"edge-{index % 3}",
                host_id=f"edge-{index % 3}",
                run_id=f"run-{index}",
            )
    with db.session(engine) as session:

        def ids(**wanted: object) -> list[int]:
            return [event.id for event in audit.events(session, **wanted)]  # type: ignore[arg-type]

        assert ids(limit=2) == [5, 6], "the newest, where nobody says after which"
        assert ids(after_id=0, limit=2) == [1, 2]
        assert ids(after_id=4) == [5, 6]
        assert ids(host="edge-1") == [2, 5]
        assert ids(event="run.started", actor="edge-0") == [4]
        assert ids(run="run-3") == [4]
        assert ids(since=audit.events(session, limit=1)[0].recorded_at) == [6]
        assert ids(since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_the_wire_form_is_json_with_the_words_of_the_command_line(engine: Engine) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with db.session(engine) as session:
        event = audit.record(session, event="run.started", actor="edge-1", host_id="edge-1", run_id="r", occurred_at=at)
        wire = audit.to_wire(event)
    assert (wire["id"], wire["host"], wire["run"]) == (1, "edge-1", "r")
    assert wire["occurred_at"] == "2026-01-02T03:04:05.000000+00:00"
