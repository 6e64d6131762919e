"""Runs: the ledger of what was pushed to whom, and what came of it.

Reports of different senders overtake each other: a host may report a run as succeeded before its principal's
`run.queued` has been read. Whichever comes first makes the row; the other fills in what it alone knows. States only
move forward along `MOVES`, so reports may be repeated or come late without harm.
"""

import re
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Table, case, func
from sqlmodel import Session, col, select

from fleet import bulk, clock, errors, names
from fleet.contracts.reports import Kind, Queued, Report
from fleet.models import Attempt, Run, RunState

#: Which states may follow a state. What is final is followed by nothing.
MOVES: MappingProxyType[RunState, frozenset[RunState]] = MappingProxyType(
    {
        RunState.QUEUED: frozenset(RunState) - {RunState.QUEUED},
        RunState.ACCEPTED: frozenset(RunState) - {RunState.QUEUED, RunState.ACCEPTED},
        RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.FAILED}),
        RunState.SUCCEEDED: frozenset(),
        RunState.FAILED: frozenset(),
        RunState.REJECTED: frozenset(),
        RunState.EXPIRED: frozenset(),
    }
)
#: What each report of a host makes of its run.
_TARGETS = {
    Kind.RUN_ACCEPTED: RunState.ACCEPTED,
    Kind.RUN_STARTED: RunState.RUNNING,
    Kind.RUN_SUCCEEDED: RunState.SUCCEEDED,
    Kind.RUN_FAILED: RunState.FAILED,
    Kind.RUN_REJECTED: RunState.REJECTED,
    Kind.RUN_EXPIRED: RunState.EXPIRED,
}
#: The end of a run id, enough of it not to be a guess.
_ENDING = re.compile(r"[0-9a-f-]{4,36}")
#: Kinds of reports that are about a run.
KINDS = frozenset({Kind.RUN_QUEUED, Kind.RUN_PROGRESSED, *_TARGETS})
#: Columns that a host's reports change, beside the state.
_CHANGING = ("assigned_at", "started_at", "finished_at", "progress", "reply", "error", "message")
_TABLE: Table = Run.__table__  # type: ignore[attr-defined]
_ATTEMPTS: Table = Attempt.__table__  # type: ignore[attr-defined]


def is_final(state: str) -> bool:
    """Say whether nothing follows the state."""
    return not MOVES[RunState(state)]


def apply(session: Session, report: Report) -> bool:
    """Take in one report about a run; return whether the run is in another state now (or is new)."""
    state = select(Run.state).where(Run.id == report.run)
    before = session.exec(state).first()
    apply_many(session, [report])
    return before != session.exec(state).first()


def apply_many(session: Session, reports: Sequence[Report]) -> None:
    """Take in reports about runs in the order given. Reports of other kinds are passed over.

    They have been checked: `run.queued` carries a `Queued`, and every run id is one.
    """
    about_runs = [report for report in reports if report.kind in KINDS and report.run]
    _fill_in(session, [report for report in about_runs if report.kind is Kind.RUN_QUEUED])
    _move(session, [report for report in about_runs if report.kind is not Kind.RUN_QUEUED])


def known_submissions(session: Session, run_ids: Iterable[str]) -> dict[str, str]:
    """Return which of these runs' `run.queued` have been taken in, with their principals."""
    query = select(Run.id, Run.submitted_by).where(col(Run.id).in_(list(run_ids)), col(Run.task) != "")
    return {run_id: principal for run_id, principal in session.exec(query).all()}  # noqa: C416 - rows, not pairs


def get(session: Session, run_id: str) -> Run:
    """Return a run; raise `errors.InvalidValue` for what is no task id, `errors.NotFound` for an unknown one."""
    host = names.host_of_run(run_id)
    run = session.get(Run, run_id)
    if run is None:
        raise errors.NotFound(
            f"no task {run_id!r} is recorded", remedy=f"`fleet task list --host {host}` shows those that are"
        )
    return run


def named(session: Session, text: str) -> Run:
    """Return the run of that id, or the only one whose id ends so: lists on narrow terminals show the last 12 digits.

    Raises `errors.InvalidValue` for what can be neither, `errors.NotFound` for none or several.
    """
    if ":" in text or not _ENDING.fullmatch(text):
        return get(session, text)
    found = session.exec(select(Run).where(col(Run.id).endswith(text)).order_by(col(Run.id)).limit(2)).all()
    if len(found) != 1:
        problem = "several tasks end" if found else "no recorded task ends"
        raise errors.NotFound(f"{problem} in {text!r}", remedy="`fleet task list -o id` shows whole ids")
    return found[0]


def listing(
    session: Session,
    *,
    host: str | None = None,
    state: str | None = None,
    task: str | None = None,
    batch: str | None = None,
    limit: int = 50,
) -> list[Run]:
    """Return runs that match all that is given, newest first."""
    query = select(Run).order_by(col(Run.submitted_at).desc(), col(Run.id).desc()).limit(limit)
    for column, value in ((Run.host_id, host), (Run.state, state), (Run.task, task), (Run.batch, batch)):
        if value is not None:
            query = query.where(col(column) == value)
    return list(session.exec(query).all())


def attempts(session: Session, run_id: str) -> list[Attempt]:
    """Return the tries at a run, first to last."""
    return list(session.exec(select(Attempt).where(Attempt.run_id == run_id).order_by(col(Attempt.number))).all())


def _fill_in(session: Session, reports: Sequence[Report]) -> None:
    """Make rows of `run.queued`, or complete those that a host's reports made. The first one of a run counts."""
    rows: dict[str, dict[str, Any]] = {}
    for report in reports:
        queued = Queued.model_validate(report.data)
        rows.setdefault(
            report.run or "",
            {
                **_blank(report.run or ""),
                "task": queued.task,
                "arguments": queued.arguments,
                "description": queued.description,
                "meta": queued.metadata,
                "submitted_by": queued.submitted_by,
                "submitted_at": clock.from_unix(queued.submitted_at),
                "not_after": None if queued.not_after is None else clock.from_unix(queued.not_after),
                "batch": queued.batch,
                "message": queued.message,
            },
        )

    def complete(statement: bulk.Insert) -> bulk.Insert:
        given = statement.excluded
        columns = ("task", "arguments", "description", "meta", "submitted_by", "submitted_at", "not_after", "batch")
        filled: dict[str, Any] = {column: given[column] for column in columns}
        # kept for sending again only while no host has accepted it
        filled["message"] = case((_TABLE.c.state == RunState.QUEUED, given.message), else_=_TABLE.c.message)
        return statement.on_conflict_do_update(index_elements=["id"], set_=filled, where=_TABLE.c.task == "")

    bulk.insert(session, _TABLE, list(rows.values()), finish=complete)


def _blank(run_id: str) -> dict[str, Any]:
    """Return the row of a run of which only the id is known; a version 7 UUID begins with its milliseconds."""
    host, _, tail = run_id.partition(":")
    return {
        "id": run_id,
        "host_id": host,
        "task": "",
        "arguments": {},
        "state": RunState.QUEUED.value,
        "description": "",
        "meta": {},
        "submitted_by": "",
        "submitted_at": clock.from_unix(int(tail.replace("-", "")[:12], 16) / 1000 % _YEAR_3000),
        "not_after": None,
        "batch": None,
        "message": None,
    }


#: Keeps a moment made of random digits (an id that is no version 7 UUID) within what databases store.
_YEAR_3000 = 32_503_680_000


def _move(session: Session, reports: Sequence[Report]) -> None:
    if not reports:
        return
    ids = sorted({report.run for report in reports if report.run})
    connection = session.connection()
    columns = [_TABLE.c.id, _TABLE.c.state, *(_TABLE.c[name] for name in _CHANGING)]
    # locked in one order by everybody; SQLite has one writer anyway
    query = select(*columns).where(_TABLE.c.id.in_(ids)).order_by(_TABLE.c.id).with_for_update()
    rows: dict[str, dict[str, Any]] = {row.id: dict(row._mapping) for row in connection.execute(query)}  # noqa: SLF001
    if missing := [_blank(run_id) for run_id in ids if run_id not in rows]:
        bulk.insert(session, _TABLE, missing, finish=lambda made: made.on_conflict_do_nothing())
        rows = {row.id: dict(row._mapping) for row in connection.execute(query)}  # noqa: SLF001
    for row in rows.values():
        row["was"] = row["state"]
    changed: set[str] = set()
    tries: dict[tuple[str, int], dict[str, Any]] = {}
    for report in reports:
        if report.run:
            if _advance(rows[report.run], report):
                changed.add(report.run)
            _try_at(tries, report)
    _write(session, [rows[run_id] for run_id in sorted(changed)])
    _write_attempts(session, [tries[key] for key in sorted(tries)])


def _advance(row: dict[str, Any], report: Report) -> bool:
    """Move one run along a report, in memory; return whether anything changed."""
    state, at = RunState(row["state"]), clock.from_unix(report.at)
    if report.kind is Kind.RUN_PROGRESSED:
        if not MOVES[state]:
            return False
        row["progress"] = {"step": report.data.get("step"), "percent": report.data.get("percent")}
        return True
    target = _TARGETS[report.kind]
    if target not in MOVES[state]:
        return False
    row.update(state=target.value, message=None)
    if target not in {RunState.REJECTED, RunState.EXPIRED}:
        row["assigned_at"] = row["assigned_at"] or at
    if target is RunState.RUNNING:
        row["started_at"] = row["started_at"] or at
    if not MOVES[target]:
        row["finished_at"] = at
    if target is RunState.SUCCEEDED:
        row["reply"] = report.data.get("reply")
    elif target is RunState.FAILED:
        row["error"] = {"kind": report.data.get("kind", "failed"), "message": report.data.get("message", "")}
    elif target is RunState.REJECTED:
        row["error"] = {"kind": report.data.get("reason", "rejected"), "message": report.data.get("detail", "")}
    elif target is RunState.EXPIRED:
        row["error"] = {"kind": "expired", "message": "its time was over before it began"}
    return True


def _write(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Write each run, by one UPDATE that holds only while the run is still where a legal move begins."""
    written = [{name: row[name] for name in ("id", "was", "state", *_CHANGING)} for row in rows]
    bulk.update(session, _TABLE, written, match={"id": "id", "state": "was"})


def _try_at(tries: dict[tuple[str, int], dict[str, Any]], report: Report) -> None:
    """Note what a report says about one try: when it began, how it ended."""
    if report.attempt is None or report.kind not in {Kind.RUN_STARTED, Kind.RUN_SUCCEEDED, Kind.RUN_FAILED}:
        return
    found = tries.setdefault(
        (report.run or "", report.attempt),
        {
            "run_id": report.run,
            "number": report.attempt,
            "state": RunState.RUNNING.value,
            "epoch": report.epoch,
            "started_at": None,
            "finished_at": None,
            "duration_seconds": None,
        },
    )
    at = clock.from_unix(report.at)
    if report.kind is Kind.RUN_STARTED:
        found["started_at"] = found["started_at"] or at
    elif found["finished_at"] is None:
        duration = report.data.get("duration_seconds")
        found.update(state=_TARGETS[report.kind].value, finished_at=at)
        found["duration_seconds"] = float(duration) if isinstance(duration, (int, float)) else None


def _write_attempts(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    def complete(statement: bulk.Insert) -> bulk.Insert:
        given, kept = statement.excluded, _ATTEMPTS.c
        values: dict[str, Any] = {
            # a try that has ended stays as it ended
            name: case((kept.state == RunState.RUNNING, given[name]), else_=kept[name])
            for name in ("state", "finished_at", "duration_seconds")
        }
        values["started_at"] = func.coalesce(kept.started_at, given.started_at)
        return statement.on_conflict_do_update(index_elements=["run_id", "number"], set_=values)

    bulk.insert(session, _ATTEMPTS, rows, finish=complete)
