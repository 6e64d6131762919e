"""Approvals: which runs wait for somebody else's word, which waited, and what the answer was.

Told by the hosts, which park the runs and check the answers; nothing here lets a run begin. Where an approval stands
follows from what its host said of the answer and from where the run is, so it does not matter which of the two is heard
first, and a run that the control plane ends takes its approval along (`settle`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlmodel import Session, col, select

from fleet import clock, db, errors, names
from fleet.contracts.approvals import arguments, digest
from fleet.contracts.envelope import HEADER, Envelope
from fleet.contracts.governed import Approved, Rejected, Said, Waiting
from fleet.contracts.reports import Kind, Report
from fleet.models import Approval, ApprovalState, Run, RunState

if TYPE_CHECKING:
    from fleet.runs import Sight

#: Reports that may move an approval.
_KINDS = frozenset(
    {
        Kind.RUN_AWAITING_APPROVAL,
        Kind.RUN_APPROVED,
        Kind.RUN_REJECTED,
        Kind.RUN_EXPIRED,
        Kind.RUN_CANCELLED,
        Kind.RUN_UNKNOWN,
    }
)
#: Where a run may be that still waits: what was accepted once and asks anew under another policy stays `accepted`.
_WAITS = frozenset({RunState.QUEUED, RunState.AWAITING_APPROVAL, RunState.ACCEPTED})
#: What a host may ask for once more.
_ASKED_ANEW = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED})
_WENT_ON = "its host went on: it does not ask any more, or its report of the answer is missing"
#: Characters of a reason that are kept, as in `fleet.contracts.control`.
_LONGEST_REASON = 1024


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a host has parked, as its principal signed it."""

    task: str
    arguments: dict[str, Any]
    envelope: Envelope


def take(session: Session, reports: Sequence[tuple[Report, Said | None]]) -> None:
    """Take in what hosts report, in the order given, with their checked data; the runs have been moved before."""
    if not reports:
        return
    about = {report.run or "" for report, _ in reports if report.kind in _KINDS}
    rows = _load(session, about)
    for report, said in reports:
        if isinstance(said, Waiting):
            rows[report.run or ""] = _ask(session, rows.get(report.run or ""), report, said)
        elif (row := rows.get(report.run or "")) is not None:
            _answer(row, report, said)
    _follow(session, rows.values())
    _follow(session, _left_behind(session))


def settle(session: Session, ended: Iterable[Run]) -> None:
    """Let the approvals of runs follow that the control plane has ended."""
    reasons = {run.id: str((run.error or {}).get("message", "")) for run in ended}
    rows = list(_load(session, reasons).values())
    for row in rows:
        if row.state == ApprovalState.PENDING:
            row.reason = reasons[row.run_id][:_LONGEST_REASON]
    _follow(session, rows)


def forget(session: Session, run_ids: Iterable[str]) -> None:
    """Drop the approvals of runs that are queued anew: their host asks again, and takes no former answer."""
    for row in _load(session, set(run_ids)).values():
        session.delete(row)
    session.flush()


def get(session: Session, run_id: str) -> Approval:
    """Return the approval of a run; raise `errors.InvalidValue`, `errors.NotFound` for a run that never waited."""
    names.host_of_run(run_id)
    found = session.get(Approval, run_id)
    if found is None:
        raise errors.NotFound(
            f"the task {run_id!r} never asked for approval",
            remedy="`fleet approval list --state all` shows those that did",
        )
    return found


def listing(
    session: Session,
    *,
    state: str | None = None,
    host: str | None = None,
    sight: "Sight | None" = None,
    limit: int = 50,
) -> list[tuple[Approval, Run]]:
    """Return the newest approvals that match all that is given, with their runs, oldest first.

    `sight` leaves out what is not for everybody's eyes.
    """
    query = select(Approval, Run).join(Run, col(Run.id) == col(Approval.run_id))
    query = db.narrowed(query, (Approval.state, state), (Approval.host_id, host))
    if sight is not None:
        query = query.where(sight.condition(host=col(Approval.host_id), submitted_by=col(Approval.principal)))
    newest = query.order_by(col(Approval.asked_at).desc(), col(Approval.run_id).desc()).limit(limit)
    return [(row, run) for row, run in reversed(session.exec(newest).all())]


def request(row: Approval, run: Run) -> Request | None:
    """Return what waits for approval, out of the very message that the host's digest is of.

    None where no such message is on record: the run has ended, or it was pushed as something else than was said.
    """
    if run.message is None:
        return None
    try:
        if digest(run.message) != row.digest:
            return None
        headers = json.loads(run.message)["headers"]
        envelope = Envelope.model_validate(headers[HEADER])
        return Request(task=headers["task"], arguments=arguments(run.message), envelope=envelope)
    except (ValueError, TypeError, AttributeError):
        return None


def _ask(session: Session, row: Approval | None, report: Report, said: Waiting) -> Approval:
    at = clock.from_unix(report.at)
    if row is None:
        row = Approval(
            run_id=report.run or "", host_id=report.sender, state=ApprovalState.PENDING, **_asked(report, said)
        )
        session.add(row)
    elif row.state in _ASKED_ANEW and at > (row.decided_at or row.asked_at):
        # a later session of its host has judged it anew, or the run was given back, and what was said of it is used up
        row.state = ApprovalState.PENDING
        row.decided_by = row.decided_at = row.run_before = None
        row.reason = ""
        for name, value in _asked(report, said).items():
            setattr(row, name, value)
    return row


def _asked(report: Report, said: Waiting) -> dict[str, Any]:
    told = said.verdict
    return {
        "principal": told.principal,
        "level": told.level,
        "risk": told.risk.value,
        "rule": told.rule,
        "digest": said.digest,
        "asked_at": clock.from_unix(report.at),
        "approve_before": clock.from_unix(said.approve_before),
    }


def _answer(row: Approval, report: Report, said: Said | None) -> None:
    at = clock.from_unix(report.at)
    if isinstance(said, Approved):
        if row.state != ApprovalState.DENIED:
            row.decided_by, row.decided_at, row.reason = said.by, at, said.reason
        row.run_before = clock.from_unix(said.run_before)
    elif isinstance(said, Rejected) and said.by is not None:
        row.state = ApprovalState.DENIED
        row.decided_by, row.decided_at, row.reason = said.by, at, said.detail[:_LONGEST_REASON]
    elif isinstance(said, Rejected):
        row.reason = said.detail[:_LONGEST_REASON] or row.reason
    elif report.kind is Kind.RUN_CANCELLED and row.run_before is None:
        row.decided_at, row.reason = at, _cancelled(report)


def _cancelled(report: Report) -> str:
    reason = f": {report.data['reason']}" if report.data.get("reason") else ""
    return f"cancelled by {report.data.get('by', 'its host')}{reason}"[:_LONGEST_REASON]


def _follow(session: Session, rows: Iterable[Approval]) -> None:
    """Put approvals where their answers and their runs are."""
    found = {row.run_id: row for row in rows}
    if not found:
        return
    session.flush()
    states = session.exec(select(Run.id, Run.state, Run.started_at).where(col(Run.id).in_(found))).all()
    for run_id, state, started_at in states:
        row = found[run_id]
        row.state = _state(row, RunState(state), started_at).value
        if row.state == ApprovalState.CANCELLED and not row.reason:
            row.reason = _WENT_ON
    session.flush()


def _state(row: Approval, run: RunState, started_at: datetime | None) -> ApprovalState:
    if row.state == ApprovalState.DENIED:
        return ApprovalState.DENIED
    if run is RunState.REJECTED:
        return ApprovalState.REFUSED
    # An earlier beginning was by a former approval, of a run that was given back since; a later attempt that came too
    # late takes nothing away from what an approval has let begin.
    begun = row.run_before is not None and started_at and row.decided_at and started_at >= row.decided_at
    if run is RunState.EXPIRED and not begun:
        return ApprovalState.EXPIRED
    if row.run_before is not None:
        return ApprovalState.APPROVED
    if run in _WAITS:
        return ApprovalState.PENDING
    # of a run that is unknown nobody has answered that anybody knows of; a late report may still tell
    return ApprovalState.EXPIRED if run is RunState.UNKNOWN else ApprovalState.CANCELLED


def _left_behind(session: Session) -> list[Approval]:
    """Return what seems to wait although its run has gone on: what would have said so is missing, or was never said."""
    query = select(Approval).join(Run, col(Run.id) == col(Approval.run_id))
    query = query.where(Approval.state == ApprovalState.PENDING, col(Run.state).not_in(_WAITS))
    return list(session.exec(query).all())


def _load(session: Session, run_ids: Iterable[str]) -> dict[str, Approval]:
    wanted = list(run_ids)
    if not wanted:
        return {}
    query = select(Approval).where(col(Approval.run_id).in_(wanted)).execution_options(populate_existing=True)
    return {row.run_id: row for row in session.exec(query)}
