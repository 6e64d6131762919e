"""Sessions: every command and file operation that was asked of a host, how it was judged, and what came of it.

A shell session is one run of a governed contract, told by its host; what is denied is on record like what is carried
out. Its row does not need the run's: a host may be heard before the principal that pushed. What the host says of the
end counts over everything that only follows from where the run is.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Table
from sqlmodel import Session, col, select

from fleet import bulk, clock, db, errors, names
from fleet.contracts import registry
from fleet.contracts.governed import Accepted, Approved, Ended, Expired, Rejected, Said, Started, Waiting
from fleet.contracts.reports import Kind, Report
from fleet.contracts.verdicts import Told
from fleet.models import Run, ShellSession

_TABLE: Table = ShellSession.__table__  # type: ignore[attr-defined]
#: How a session ends of which its host has not said so itself.
_ENDS = {
    Kind.RUN_REJECTED: "rejected",
    Kind.RUN_EXPIRED: "expired",
    Kind.RUN_CANCELLED: "cancelled",
    Kind.RUN_FAILED: "failed",
    Kind.RUN_UNKNOWN: "unknown",
}
#: Ends that another one may replace.
_OPEN = frozenset({None, "unknown"})
#: Columns that the host's word of the end fills as it is.
_ENDING = (
    "outcome",
    "duration_seconds",
    "exit_code",
    "detail",
    "stdout",
    "stderr",
    "stdout_bytes",
    "stderr_bytes",
    "stdout_sha256",
    "stderr_sha256",
    "truncated",
)
#: Characters of an explanation that are kept, as in `contracts.verdicts`.
_LONGEST_DETAIL = 1000


def take(session: Session, reports: Sequence[tuple[Report, Said | None]]) -> None:
    """Take in what hosts report, in the order given, with their checked data."""
    about = {report.run or "" for report, said in reports if report.kind in _ENDS or _concerns(said)}
    rows = _load(session, about)
    started: dict[str, datetime] = {}
    for report, said in reports:
        run, at = report.run or "", clock.from_unix(report.at)
        row = rows.get(run)
        if isinstance(said, Accepted | Waiting | Rejected | Expired) and said.verdict and _governed(said.verdict):
            row = rows[run] = _judged(session, row, report, said.verdict)
        if row is not None:
            _note(row, report, said, at=at)
        elif report.kind is Kind.RUN_STARTED:
            started[run] = at
    session.flush()
    # most of these are no sessions: an UPDATE that finds nothing costs less than asking first
    told = [{"run_id": run, "started_at": at} for run, at in sorted(started.items())]
    bulk.update(session, _TABLE, told, match={"run_id": "run_id"})


def settle(session: Session, ended: Iterable[Run]) -> None:
    """End the sessions of runs that the control plane has ended."""
    runs = {run.id: run for run in ended}
    for run_id, row in _load(session, runs).items():
        run = runs[run_id]
        _end(row, run.state, at=run.finished_at or clock.now(), detail=str((run.error or {}).get("message", "")))
    session.flush()


def forget(session: Session, run_ids: Iterable[str]) -> None:
    """Take back what was said of runs that are queued anew: who approved them, and that and as what they began."""
    for row in _load(session, list(run_ids)).values():
        row.approved_by = row.started_at = row.run_as = None
    session.flush()


def listing(
    session: Session,
    *,
    host: str | None = None,
    principal: str | None = None,
    run: str | None = None,
    since: datetime | None = None,
    limit: int = 50,
) -> list[ShellSession]:
    """Return the newest sessions that match all that is given, oldest first; `since` is when they were asked for."""
    wanted = ((ShellSession.host_id, host), (ShellSession.principal, principal), (ShellSession.run_id, run))
    query = db.narrowed(select(ShellSession), *wanted)
    if since is not None:
        query = query.where(col(ShellSession.asked_at) >= since)
    newest = query.order_by(col(ShellSession.asked_at).desc(), col(ShellSession.run_id).desc()).limit(limit)
    return list(reversed(session.exec(newest).all()))


def get(session: Session, run_id: str) -> ShellSession:
    """Return the session of a run; raise `errors.InvalidValue`, or `errors.NotFound` for a run that is none."""
    names.host_of_run(run_id)
    found = session.get(ShellSession, run_id)
    if found is None:
        raise errors.NotFound(
            f"the task {run_id!r} is no command and no file operation, or nothing of it has been reported yet",
            remedy="`fleet audit list --kind shell` shows those that are recorded",
        )
    return found


def named(session: Session, text: str) -> ShellSession:
    """Return the session of that id, or the only one whose id ends so, like `runs.named`."""
    if ":" in text or not names.RUN_ENDING.fullmatch(text):
        return get(session, text)
    query = select(ShellSession).where(col(ShellSession.run_id).endswith(text)).order_by(col(ShellSession.run_id))
    found = session.exec(query.limit(2)).all()
    if len(found) != 1:
        problem = "several sessions end" if found else "no recorded session ends"
        raise errors.NotFound(f"{problem} in {text!r}", remedy="`fleet audit list --kind shell -o id` shows whole ids")
    return found[0]


def find(session: Session, run_ids: Sequence[str]) -> dict[str, ShellSession]:
    """Return the sessions of those of these runs that are some, by their ids."""
    return _load(session, run_ids)


def _ended(row: ShellSession) -> dict[str, Any]:
    """Return what is on record of the attempt that has ended last, in plain types."""
    moments = {"started_at": row.started_at, "finished_at": row.finished_at}
    return {
        "attempt": row.attempt,
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
        **{name: getattr(row, name) for name in _ENDING},
    }


def _concerns(said: Said | None) -> bool:
    return isinstance(said, Approved | Started | Ended) or getattr(said, "verdict", None) is not None


def _governed(verdict: Told) -> bool:
    """Say whether a judged request is a session: other contracts may have to be approved as well."""
    try:
        return registry.get(verdict.task).governed
    except errors.UnknownTask:
        return bool(verdict.argv)  # of a package that is not installed here


def _judged(session: Session, row: ShellSession | None, report: Report, verdict: Told) -> ShellSession:
    at = clock.from_unix(report.at)
    told: dict[str, Any] = {
        "principal": verdict.principal,
        "level": verdict.level,
        "task": verdict.task,
        "risk": verdict.risk.value,
        "argv": list(verdict.argv),
        "cwd": verdict.cwd,
        "run_as": verdict.run_as and verdict.run_as.model_dump(mode="json"),
        "decision": verdict.decision.value,
        "reason": verdict.reason,
        "rule": verdict.rule,
        "policy": verdict.policy,
    }
    if row is None:
        row = ShellSession(run_id=report.run or "", host_id=report.sender, asked_at=at, **told)
        session.add(row)
        return row
    for name, value in told.items():
        setattr(row, name, value)
    row.asked_at = min(row.asked_at, at)
    return row


def _note(row: ShellSession, report: Report, said: Said | None, *, at: datetime) -> None:
    if isinstance(said, Ended):
        attempt = report.attempt or 1
        if row.outcome is not None and attempt > row.attempt:
            row.earlier = [*row.earlier, _ended(row)]
        row.attempt = attempt
        for name in _ENDING:
            setattr(row, name, getattr(said, name))
        row.started_at, row.finished_at = clock.from_unix(said.started_at), at
    elif isinstance(said, Approved):
        row.approved_by = said.by
    elif isinstance(said, Started):
        row.run_as = said.run_as.model_dump(mode="json")
    elif report.kind is Kind.RUN_STARTED:
        row.started_at = at
    elif report.kind in _ENDS:
        detail = report.data.get("detail") or report.data.get("message") or report.data.get("reason") or ""
        _end(row, _ENDS[report.kind], at=at, detail=str(detail))


def _end(row: ShellSession, outcome: str, *, at: datetime, detail: str) -> None:
    if row.outcome in _OPEN:
        row.outcome, row.finished_at, row.detail = outcome, row.finished_at or at, detail[:_LONGEST_DETAIL]


def _load(session: Session, run_ids: Iterable[str]) -> dict[str, ShellSession]:
    wanted = list(run_ids)
    if not wanted:
        return {}
    query = select(ShellSession).where(col(ShellSession.run_id).in_(wanted)).execution_options(populate_existing=True)
    return {row.run_id: row for row in session.exec(query)}
