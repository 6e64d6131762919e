"""Recording: what a batch of reports does to the database, in one transaction.

Cursor, runs with their approvals and sessions, inventory and audit are written together or not at all, so a batch that
is read again after a crash finds its cursor moved and changes nothing. Nothing here talks to the broker.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel import Session

from fleet import approvals, audit, clock, db, inventory, names, principals, runs, sessions
from fleet.contracts.governed import Said, is_told_by
from fleet.contracts.reports import Kind, Report
from fleet.contracts.secrets import SecretsWanted
from fleet.models import Run
from fleet.runs import Registration
from workers.control import cursors, entries, reading
from workers.control.batches import Batch, Recorded
from workers.control.reading import Inventory, OfferedKey, Reading, Registered, TakenCredential

#: Says whether the report of a host, by session and number, is waited for, and what came after it is not taken in.
WaitsFor = Callable[[str, int, int], bool]


def _nothing_is_waited_for(_host: str, _epoch: int, _seq: int) -> bool:
    return False


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
    #: what hosts report of runs, with its checked data
    said: list[tuple[Report, Said | None]] = field(default_factory=list)
    #: requests to cancel, with what was read
    cancels: list[Reading] = field(default_factory=list)
    #: newest registration of each host
    registrations: dict[str, Registration] = field(default_factory=dict)
    #: runs of which each host has spoken after it registered
    told_since: dict[str, list[str]] = field(default_factory=dict)
    #: says whether reports that are missing are waited for, of which host, session, and from which number on
    waits_for: WaitsFor = _nothing_is_waited_for
    missing: dict[tuple[str, int], int] = field(default_factory=dict)
    entries: list[audit.Entry] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    wanted: dict[tuple[str, str], SecretsWanted] = field(default_factory=dict)


def record(session: Session, batches: Sequence[Batch], *, waits_for: WaitsFor = _nothing_is_waited_for) -> Recorded:
    """Take in batches, in one order of writing: runs, inventory, cursors, and the audit last.

    Of a session in which a number is missing nothing later is taken in while `waits_for` says so: its host still has
    it all, and is asked. Where that is not waited for, the gap goes on record.
    """
    db.take(session, db.Lock.INGEST)
    # principals first: a run's `queued` then stands before what its host made of it
    ordered = sorted(batches, key=lambda batch: not batch.from_principal)
    members = inventory.accepted(session, [batch.sender for batch in batches if not batch.from_principal])
    keys = {**members, **_keys_of_principals(session, batches)}
    read = [(batch, _readings(batch, keys.get(batch.sender, ()))) for batch in ordered]
    queued = [found.report.run for batch, items in read if batch.from_principal for found in items if found.report]
    work = _Work(
        session=session,
        cursors=cursors.load(session, [batch.sender for batch in batches]),
        submissions=runs.known_submissions(session, [run for run in queued if run]) if queued else {},
        waits_for=waits_for,
    )
    known = dict(work.cursors)
    for batch, items in read:
        if batch.from_principal:
            _take_from_principal(work, batch, items)
        elif batch.sender in members:
            _take_from_host(work, batch, items)
        else:
            work.entries.append(entries.of_stranger(batch.sender, len(batch.items)))
    applied = runs.apply_many(session, work.reports)
    approvals.take(session, work.said)
    sessions.take(session, work.said)
    work.entries.extend(entries.of_settled(run, state) for run, state in applied.settled)
    unattended = {*applied.handed_back, *_take_cancels(work), *_take_registrations(work)}
    cursors.store(session, {key: seq for key, seq in work.cursors.items() if known.get(key) != seq})
    events = audit.record_many(session, work.entries)
    return Recorded(
        events, work.taken_in, frozenset(unattended), work.missing, frozenset(work.changed), dict(work.wanted)
    )


def refuse(session: Session, batch: Batch, reason: str) -> Recorded:
    """Put the one item of a batch aside that the database would not take, and count its number as taken in."""
    db.take(session, db.Lock.INGEST)
    sender, (item,) = batch.sender, batch.items
    taken_in: dict[str, dict[int, int]] = {}
    digest = {"size": len(item), "sha256": hashlib.sha256(item).hexdigest()}
    members = inventory.accepted(session, [sender])
    refused = []
    for found in _readings(batch, members.get(sender, ())):
        if found.epoch and found.seq and sender in members:
            newest = max(cursors.load(session, [sender]).get((sender, found.epoch), 0), found.seq)
            cursors.store(session, {(sender, found.epoch): newest})
            taken_in.setdefault(sender, {})[found.epoch] = newest
        refused.append(entries.of_refusal(sender, found.epoch, found.seq, {"reason": reason, **digest}))
    return Recorded(audit.record_many(session, refused), taken_in)


def refuse_strangers(session: Session, senders: Sequence[bytes]) -> Recorded:
    """Record marks in the dirty set that name nobody who could report; one event for all of them."""
    data = {"reason": "unknown sender", "count": len(senders), "example": repr(senders[0][:80])}
    return Recorded(audit.record_many(session, [audit.Entry(event="report.refused", actor="control", data=data)]), {})


def _keys_of_principals(session: Session, batches: Sequence[Batch]) -> dict[str, tuple[str, ...]]:
    wanted = [batch.sender.removeprefix("p:") for batch in batches if batch.from_principal]
    found = principals.keys(session, wanted) if wanted else {}
    return {names.principal_sender(name): keys for name, keys in found.items()}


def _readings(batch: Batch, keys: Sequence[str]) -> list[Reading]:
    found = [each for item in batch.items for each in reading.read(item, batch.sender, keys)]
    return found if batch.place is None else found[batch.place : batch.place + 1]


def _take_from_principal(work: _Work, batch: Batch, items: Sequence[Reading]) -> None:
    # the row says that this list exists, for sweeps after a lost mark
    work.cursors.setdefault((batch.sender, 0), 0)
    refused = []
    for found in items:
        report = found.report
        if report is None or report.run is None:
            refused.append(found)
            continue
        if report.kind is Kind.RUN_CANCEL_REQUESTED:
            work.cancels.append(found)
            continue
        principal = batch.sender.removeprefix("p:")
        if report.run not in work.submissions:
            work.submissions[report.run] = principal
            work.reports.append(report)
            work.entries.append(entries.of_report(report, entries.host_of(report.run), size=found.size))
        elif work.submissions[report.run] != principal:
            evidence = {"run": report.run, "submitted_by": work.submissions[report.run]}
            refused.append(Reading(reason="the run is another principal's", evidence=evidence))
    work.entries.extend(entries.of_refusals(batch.sender, refused))


def _take_from_host(work: _Work, batch: Batch, items: Sequence[Reading]) -> None:
    refused = []
    for found in items:
        numbered = found.epoch > 0 and found.seq > 0
        if numbered:
            newest = work.cursors.get((batch.sender, found.epoch), 0)
            session = (batch.sender, found.epoch)
            if session in work.missing:
                continue  # decided for all that came after the gap
            if found.seq > newest + 1 and work.waits_for(*session, newest + 1):
                work.missing[session] = newest + 1
                continue
            # acknowledged again: the last acknowledgement may have been lost
            work.taken_in.setdefault(batch.sender, {})[found.epoch] = max(newest, found.seq)
            if found.seq <= newest:
                continue
            if found.seq > newest + 1:
                work.entries.append(entries.of_gap(batch.sender, found.epoch, newest + 1, found.seq - 1))
            work.cursors[(batch.sender, found.epoch)] = found.seq
        if found.report is None or not numbered:
            refused.append(found if found.report is None else Reading(reason="without a number"))
            continue
        work.reports.append(found.report)
        if is_told_by(found.report.kind, found.payload):
            work.said.append((found.report, found.payload if isinstance(found.payload, Said) else None))
        if found.report.run and batch.sender in work.registrations:
            work.told_since[batch.sender].append(found.report.run)
        entry = _perform(work, batch.sender, found)
        if entry:
            work.entries.append(entry)
    work.entries.extend(entries.of_refusals(batch.sender, refused))


def _perform(work: _Work, host: str, found: Reading) -> audit.Entry | None:
    """Write what a report says about the host itself; return its audit entry, if it has one."""
    report, payload = found.report, found.payload
    assert report is not None
    at = clock.from_unix(report.at)
    if report.kind is Kind.HOST_DEREGISTERED:
        inventory.deregister(work.session, host, at=at)
    if isinstance(payload, Registered):
        inventory.register(work.session, host, facts=payload.facts, unlisted=payload.unlisted, at=at)
        _note_registration(work, host, payload, at=at, epoch=report.epoch)
    if isinstance(payload, OfferedKey):
        inventory.offer_key(work.session, host, key=payload.key, broker_hash=payload.broker_hash)
        work.changed.add(host)
    if isinstance(payload, TakenCredential) and inventory.settle_key(work.session, host, key=payload.key):
        work.changed.add(host)
    if isinstance(payload, SecretsWanted):
        work.wanted[(host, report.run or "")] = payload
    if not isinstance(payload, Inventory):
        return entries.of_report(report, host, size=found.size)
    if report.kind is Kind.INVENTORY_SYNCED:
        difference = inventory.sync_containers(work.session, host, payload.containers, at=at)
    else:
        difference = inventory.change_containers(work.session, host, payload.containers, payload.removed)
    if not difference:
        return None  # a full sync that found nothing new, every minute from every host, is no step of anything
    data = {"added": difference.added, "changed": difference.changed, "removed": difference.removed}
    return entries.of_report(report, host, size=found.size, data=data)


def _note_registration(work: _Work, host: str, payload: Registered, *, at: datetime, epoch: int) -> None:
    """Note what the newest session has; an older one that is heard late, of another journal perhaps, does not count."""
    if epoch >= max(known for sender, known in work.cursors if sender == host):
        work.registrations[host] = Registration(
            host=host, at=at, journal=payload.journal, unfinished=payload.unfinished
        )
        work.told_since[host] = []


def _take_cancels(work: _Work) -> list[str]:
    """Write down who asked for the end of what; return the runs that may still be taken out of their queues."""
    reports = [found.report for found in work.cancels if found.report and _may_cancel(work, found.report)]
    sizes = {id(found.report): found.size for found in work.cancels}
    attended = []
    for request in runs.request_cancels(work.session, reports):
        if request.state is None:
            evidence = {"run": request.report.run, "kind": request.report.kind.value}
            work.entries.extend(
                entries.of_refusals(request.report.sender, [Reading(reason="no such run", evidence=evidence)])
            )
        elif not request.repeated:
            work.entries.append(entries.of_cancel(request, size=sizes[id(request.report)]))
        if request.first or request.repeated:
            attended.append(request.report.run or "")
    return attended


def _may_cancel(work: _Work, report: Report) -> bool:
    """Say whether its principal may ask for that, and put it on record where not: the control plane acts upon it in the
    fleet's name, so hosts would obey."""
    run = work.session.get(Run, report.run)
    if run is None or principals.may_end(work.session, report.sender.removeprefix("p:"), run):
        return True
    evidence = {"run": report.run, "kind": report.kind.value}
    work.entries.extend(entries.of_refusals(report.sender, [Reading(reason="not permitted", evidence=evidence)]))
    return False


def _take_registrations(work: _Work) -> list[str]:
    """Take up what hosts have forgotten; return the runs that are sent again, or whose callers are to be told."""
    unattended: list[str] = []
    for host, registration in sorted(work.registrations.items()):
        found = runs.forget_missing(work.session, registration, told_since=work.told_since[host])
        for run, (state, attempt) in found.requeued.items():
            work.entries.append(entries.of_requeued(run, state, attempt))
        verdicts = {verdict.run: verdict for verdict in found.lost}
        approvals.forget(work.session, found.requeued)
        sessions.forget(work.session, found.requeued)
        settled = runs.settle(work.session, verdicts, at=registration.at)
        approvals.settle(work.session, settled)
        sessions.settle(work.session, settled)
        work.entries.extend(entries.of_ended(run) for run in settled)
        unattended += [*found.requeued, *(run.id for run in settled)]
    return unattended
