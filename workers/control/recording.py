"""Recording: what a batch of reports does to the database, in one transaction.

Cursor, runs, inventory and audit are written together or not at all, so a batch that is read again after a crash finds
its cursor moved and changes nothing. Nothing here talks to the broker.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table
from sqlmodel import Session, col, select

from fleet import audit, bulk, canonical, clock, db, inventory, runs
from fleet.contracts.hosts import Facts
from fleet.contracts.reports import Kind, Report
from fleet.models import ReportCursor
from workers.control import reading
from workers.control.reading import Inventory, Reading

#: Refusals recorded one by one in a batch; the rest of a flood is counted.
_MOST_REFUSALS = 10
#: Bytes of a report's data that the audit keeps; of longer data size and digest.
_MOST_DATA = 16 * 1024
_CURSORS: Table = ReportCursor.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Batch:
    """The oldest items of one sender's list, oldest first."""

    sender: str
    items: Sequence[bytes]
    #: whether the list may hold newer ones, too
    more: bool = False

    @property
    def from_principal(self) -> bool:
        return self.sender.startswith("p:")


@dataclass(frozen=True)
class Recorded:
    """What was committed: the rows of the audit to publish, and per host how far each of its sessions is taken in."""

    events: Sequence[Mapping[str, Any]]
    taken_in: Mapping[str, Mapping[int, int]]

    @classmethod
    def joined(cls, parts: Sequence["Recorded"]) -> "Recorded":
        """Return what several transactions committed, in their order."""
        taken_in: dict[str, dict[int, int]] = {}
        for part in parts:
            for host, sessions in part.taken_in.items():
                taken_in.setdefault(host, {}).update(sessions)
        return cls([event for part in parts for event in part.events], taken_in)


@dataclass
class _Work:
    """What one transaction collects before it writes."""

    session: Session
    #: (sender, epoch) → newest number taken in
    cursors: dict[tuple[str, int], int]
    #: run id → principal whose `run.queued` counts
    submissions: dict[str, str]
    taken_in: dict[str, dict[int, int]] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    entries: list[audit.Entry] = field(default_factory=list)


def record(session: Session, batches: Sequence[Batch]) -> Recorded:
    """Take in batches, in one order of writing: runs, inventory, cursors, and the audit last."""
    db.take(session, db.Lock.INGEST)
    # principals first: a run's `queued` then stands before what its host made of it
    ordered = sorted(batches, key=lambda batch: not batch.from_principal)
    read = [(batch, [reading.read(item, batch.sender) for item in batch.items]) for batch in ordered]
    members = inventory.accepted(session, [batch.sender for batch in batches if not batch.from_principal])
    queued = [found.report.run for batch, items in read if batch.from_principal for found in items if found.report]
    work = _Work(
        session=session,
        cursors=_load_cursors(session, [batch.sender for batch in batches]),
        submissions=runs.known_submissions(session, [run for run in queued if run]) if queued else {},
    )
    known = dict(work.cursors)
    for batch, items in read:
        if batch.from_principal:
            _take_from_principal(work, batch, items)
        elif batch.sender in members:
            _take_from_host(work, batch, items)
        else:
            work.entries.append(_entry_of_stranger(batch))
    runs.apply_many(session, work.reports)
    _store_cursors(session, {key: seq for key, seq in work.cursors.items() if known.get(key) != seq})
    return Recorded(audit.record_many(session, work.entries), work.taken_in)


def refuse(session: Session, sender: str, item: bytes, reason: str) -> Recorded:
    """Put one item aside that the database would not take, and count its number as taken in."""
    db.take(session, db.Lock.INGEST)
    found = reading.read(item, sender)
    taken_in: dict[str, dict[int, int]] = {}
    if found.epoch and found.seq and inventory.accepted(session, [sender]):
        newest = max(_load_cursors(session, [sender]).get((sender, found.epoch), 0), found.seq)
        _store_cursors(session, {(sender, found.epoch): newest})
        taken_in = {sender: {found.epoch: newest}}
    digest = {"size": len(item), "sha256": hashlib.sha256(item).hexdigest()}
    entry = _refusal(sender, found.epoch, found.seq, {"reason": reason, **digest})
    return Recorded(audit.record_many(session, [entry]), taken_in)


def refuse_strangers(session: Session, senders: Sequence[bytes]) -> Recorded:
    """Record marks in the dirty set that name nobody who could report; one event for all of them."""
    data = {"reason": "unknown sender", "count": len(senders), "example": repr(senders[0][:80])}
    return Recorded(audit.record_many(session, [audit.Entry(event="report.refused", actor="control", data=data)]), {})


def _take_from_principal(work: _Work, batch: Batch, items: Sequence[Reading]) -> None:
    # the row says that this list exists, for sweeps after a lost mark
    work.cursors.setdefault((batch.sender, 0), 0)
    refused = []
    for found in items:
        report = found.report
        if report is None or report.run is None:
            refused.append(found)
            continue
        principal = batch.sender.removeprefix("p:")
        if report.run not in work.submissions:
            work.submissions[report.run] = principal
            work.reports.append(report)
            work.entries.append(_entry(report, _host_of(report.run), size=found.size))
        elif work.submissions[report.run] != principal:
            evidence = {"run": report.run, "submitted_by": work.submissions[report.run]}
            refused.append(Reading(reason="the run is another principal's", evidence=evidence))
    work.entries.extend(_refusals(batch.sender, refused))


def _take_from_host(work: _Work, batch: Batch, items: Sequence[Reading]) -> None:
    refused = []
    for found in items:
        numbered = found.epoch > 0 and found.seq > 0
        if numbered:
            newest = work.cursors.get((batch.sender, found.epoch), 0)
            # acknowledged again: the last acknowledgement may have been lost
            work.taken_in.setdefault(batch.sender, {})[found.epoch] = max(newest, found.seq)
            if found.seq <= newest:
                continue
            if found.seq > newest + 1:
                work.entries.append(_missing(batch.sender, found.epoch, newest + 1, found.seq - 1))
            work.cursors[(batch.sender, found.epoch)] = found.seq
        if found.report is None or not numbered:
            refused.append(found if found.report is None else Reading(reason="without a number"))
            continue
        work.reports.append(found.report)
        entry = _perform(work, batch.sender, found)
        if entry:
            work.entries.append(entry)
    work.entries.extend(_refusals(batch.sender, refused))


def _perform(work: _Work, host: str, found: Reading) -> audit.Entry | None:
    """Write what a report says about the host itself; return its audit entry, if it has one."""
    report, payload = found.report, found.payload
    assert report is not None
    at = clock.from_unix(report.at)
    if report.kind is Kind.HOST_DEREGISTERED:
        inventory.deregister(work.session, host, at=at)
    if isinstance(payload, Facts):
        inventory.register(work.session, host, facts=payload, at=at)
    if not isinstance(payload, Inventory):
        return _entry(report, host, size=found.size)
    if report.kind is Kind.INVENTORY_SYNCED:
        difference = inventory.sync_containers(work.session, host, payload.containers, at=at)
    else:
        difference = inventory.change_containers(work.session, host, payload.containers, payload.removed)
    if not difference:
        return None  # a full sync that found nothing new, every minute from every host, is no step of anything
    data = {"added": difference.added, "changed": difference.changed, "removed": difference.removed}
    return _entry(report, host, size=found.size, data=data)


def _host_of(run_id: str) -> str:
    """Return the host in a run id that has been checked."""
    return run_id.partition(":")[0]


def _entry(report: Report, host: str, *, size: int, data: Mapping[str, Any] | None = None) -> audit.Entry:
    return audit.Entry(
        event=report.kind.value,
        actor=report.sender,
        host_id=host,
        run_id=report.run if report.kind in runs.KINDS else None,
        occurred_at=clock.from_unix(report.at),
        epoch=report.epoch,
        seq=report.seq,
        data=_bounded(_told(report) if data is None else data, size),
    )


def _told(report: Report) -> Mapping[str, Any]:
    """Return what the audit keeps of a report: all, but for what the run's row holds and may be large or private."""
    data = dict(report.data)
    if report.kind is Kind.RUN_QUEUED:
        del data["arguments"]
        data["message_sha256"] = hashlib.sha256(data.pop("message").encode()).hexdigest()
    elif report.kind is Kind.RUN_SUCCEEDED:
        data["reply_sha256"] = hashlib.sha256(canonical.encode(data.pop("reply", None))).hexdigest()
    if report.attempt is not None:
        data["attempt"] = report.attempt
    return data


def _bounded(data: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """Return data, or what identifies them where they are large; they come from an item of `size` bytes."""
    if size * 6 <= _MOST_DATA:  # a character grows to six at most (\\u0000)
        return data
    encoded = canonical.encode(canonical.plain(dict(data)))
    if len(encoded) <= _MOST_DATA:
        return data
    return {"truncated": True, "size": len(encoded), "sha256": hashlib.sha256(encoded).hexdigest()}


def _entry_of_stranger(batch: Batch) -> audit.Entry:
    data = {"reason": "the host is not enrolled", "count": len(batch.items)}
    return audit.Entry(event="report.refused", actor="control", host_id=batch.sender, data=data)


def _missing(host: str, epoch: int, first: int, last: int) -> audit.Entry:
    data = {"first": first, "last": last}
    return audit.Entry(event="report.missing", actor="control", host_id=host, epoch=epoch, seq=last, data=data)


def _refusals(sender: str, refused: Sequence[Reading]) -> list[audit.Entry]:
    entries = [
        _refusal(sender, found.epoch, found.seq, {"reason": found.reason, **(found.evidence or {})})
        for found in refused[:_MOST_REFUSALS]
    ]
    if len(refused) > _MOST_REFUSALS:
        data = {"reason": "more of the kind", "count": len(refused) - _MOST_REFUSALS}
        entries.append(_refusal(sender, 0, 0, data))
    return entries


def _refusal(sender: str, epoch: int, seq: int, data: Mapping[str, Any]) -> audit.Entry:
    host = None if sender.startswith("p:") else sender
    told = {"sender": sender, **data}
    return audit.Entry(event="report.refused", actor="control", host_id=host, epoch=epoch, seq=seq, data=told)


def _load_cursors(session: Session, senders: Sequence[str]) -> dict[tuple[str, int], int]:
    rows = session.exec(select(ReportCursor).where(col(ReportCursor.sender).in_(senders)))
    return {(row.sender, row.epoch): row.seq for row in rows}


def _store_cursors(session: Session, cursors: Mapping[tuple[str, int], int]) -> None:
    rows = [{"sender": sender, "epoch": epoch, "seq": seq} for (sender, epoch), seq in cursors.items()]
    bulk.insert(
        session,
        _CURSORS,
        rows,
        finish=lambda made: made.on_conflict_do_update(
            index_elements=["sender", "epoch"], set_={"seq": made.excluded.seq}
        ),
    )


def known_senders(session: Session) -> set[str]:
    """Return everybody whose list may hold something: all hosts, and whoever has reported before."""
    return {host.id for host in inventory.hosts(session)} | set(session.exec(select(col(ReportCursor.sender))).all())
