"""The audit: every step of everything, append-only, each row chained to the one before.

`hash = SHA-256(previous hash as 32 bytes ‖ canonical row)`; the first row's previous hash is 32 zero bytes. The
canonical row is `fleet.canonical.encode` of one JSON object with the keys of `AuditEvent` except the two hashes;
moments read `2030-01-31T12:00:00.000000+00:00`, always UTC, always microseconds. Both databases give the same bytes.
Ids run 1, 2, 3 … without gaps, so a row taken out of the middle shows, too. A cut tail does not.

One transaction at a time appends. Record last, after every other change of a transaction: the right to append is kept
until it ends, and who still waits for a row meanwhile may wait for each other.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table
from sqlmodel import Session, col, select

from fleet import bulk, canonical, clock, db
from fleet.models import AuditEvent

#: The previous hash of the first row.
GENESIS = "0" * 64
#: Rows that one query of `verify` reads.
_PAGE = 1_000
_TABLE: Table = AuditEvent.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is to be recorded: an event (`noun.past_participle`), who did it, on what, and when it happened."""

    event: str
    #: `p:<principal>`, a host id, `token:<id>`, or "control"
    actor: str
    host_id: str | None = None
    run_id: str | None = None
    #: None for the moment of recording
    occurred_at: datetime | None = None
    epoch: int = 0
    seq: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


def record(
    session: Session,
    *,
    event: str,
    actor: str,
    host_id: str | None = None,
    run_id: str | None = None,
    occurred_at: datetime | None = None,
    epoch: int = 0,
    seq: int = 0,
    data: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Append one event and return it."""
    entry = Entry(
        event=event,
        actor=actor,
        host_id=host_id,
        run_id=run_id,
        occurred_at=occurred_at,
        epoch=epoch,
        seq=seq,
        data=data or {},
    )
    return AuditEvent(**record_many(session, [entry])[0])


def record_many(session: Session, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Append events in the order given, in one go, and return their rows (the fields of `AuditEvent`)."""
    if not entries:
        return []
    session.flush()  # what waits for a row must not do so with the right in hand
    db.take(session, db.Lock.AUDIT)
    newest = session.execute(
        select(col(AuditEvent.id), col(AuditEvent.hash)).order_by(col(AuditEvent.id).desc()).limit(1)
    ).one_or_none()
    number, previous = (newest[0], newest[1]) if newest else (0, GENESIS)
    recorded_at = clock.now()
    rows = []
    for entry in entries:
        number += 1
        row = {
            "id": number,
            "recorded_at": recorded_at,
            "occurred_at": entry.occurred_at or recorded_at,
            "event": entry.event,
            "actor": entry.actor,
            "host_id": entry.host_id,
            "run_id": entry.run_id,
            "epoch": entry.epoch,
            "seq": entry.seq,
            "data": canonical.plain(dict(entry.data)),
            "previous_hash": previous,
        }
        previous = row["hash"] = chain(row)
        rows.append(row)
    bulk.insert(session, _TABLE, rows)
    return rows


def chain(row: Mapping[str, Any]) -> str:
    """Return the hash of a row (a mapping with the fields of `AuditEvent`) from its content and `previous_hash`."""
    content = {key: value for key, value in row.items() if key not in {"hash", "previous_hash"}}
    content["recorded_at"] = _moment(row["recorded_at"])
    content["occurred_at"] = _moment(row["occurred_at"])
    return hashlib.sha256(bytes.fromhex(row["previous_hash"]) + canonical.encode(content)).hexdigest()


def verify(session: Session) -> int | None:
    """Walk the whole chain and return the id of the first row that does not fit, or None where every one does."""
    number, previous = 0, GENESIS
    while page := events(session, after_id=number, limit=_PAGE):
        for event in page:
            number += 1
            if event.id != number or event.previous_hash != previous or not _fits(event):
                return event.id
            previous = event.hash
        session.expunge_all()
    return None


def events(
    session: Session,
    *,
    host: str | None = None,
    run: str | None = None,
    event: str | None = None,
    actor: str | None = None,
    after_id: int | None = None,
    since: datetime | None = None,
    limit: int = 100,
) -> list[AuditEvent]:
    """Return events that match all that is given, oldest first.

    With `after_id` those that follow it (0 begins at the beginning), without it the newest. `since` is the time of
    recording.
    """
    query = select(AuditEvent)
    wanted = (
        (AuditEvent.host_id, host),
        (AuditEvent.run_id, run),
        (AuditEvent.event, event),
        (AuditEvent.actor, actor),
    )
    query = db.narrowed(query, *wanted)
    if since is not None:
        query = query.where(col(AuditEvent.recorded_at) >= since)
    if after_id is None:
        return list(reversed(session.exec(query.order_by(col(AuditEvent.id).desc()).limit(limit)).all()))
    return list(
        session.exec(query.where(col(AuditEvent.id) > after_id).order_by(col(AuditEvent.id)).limit(limit)).all()
    )


def to_wire(event: AuditEvent) -> dict[str, Any]:
    """Return the JSON form of an event, as `fleet:watch` and `fleet audit -o json` carry it."""
    return row_to_wire(_row(event))


def row_to_wire(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON form of a row that `record_many` returned."""
    return {
        "v": 1,
        "id": row["id"],
        "event": row["event"],
        "actor": row["actor"],
        "host": row["host_id"],
        "run": row["run_id"],
        "occurred_at": _moment(row["occurred_at"]),
        "recorded_at": _moment(row["recorded_at"]),
        "epoch": row["epoch"],
        "seq": row["seq"],
        "data": row["data"],
        "hash": row["hash"],
    }


def _row(event: AuditEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in AuditEvent.model_fields}


def _fits(event: AuditEvent) -> bool:
    try:
        return event.hash == chain(_row(event))
    except ValueError:  # data that `record` would never have written
        return False


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")
