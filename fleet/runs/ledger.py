"""The ledger: reports about runs, taken into the tables in one go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, case, literal_column, or_
from sqlmodel import Session, col, select

from fleet import bulk, clock
from fleet.contracts.reports import Kind, Queued, Report
from fleet.models import Run, RunState
from fleet.runs import tries
from fleet.runs.advancing import CHANGING, Row, advance
from fleet.runs.states import FINAL, OPEN, TARGETS

_TABLE: Table = Run.__table__  # type: ignore[attr-defined]
#: What `run.queued` alone knows.
_SUBMITTED = (
    "task",
    "arguments",
    "description",
    "meta",
    "submitted_by",
    "submitted_at",
    "not_after",
    "not_before",
    "limit_seconds",
    "max_retries",
    "retry_of",
    "batch",
)
#: Keeps a moment made of random digits (an id that is no version 7 UUID) within what databases store.
_YEAR_3000 = 32_503_680_000


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What came of reports that somebody has to act upon."""

    #: runs that were `unknown`, with the states that late reports made of them
    settled: tuple[tuple[str, RunState], ...] = ()
    #: runs that their hosts gave back, to be sent again
    handed_back: tuple[str, ...] = ()


def apply(session: Session, report: Report) -> bool:
    """Take in one report about a run; return whether the run is in another state now (or is new)."""
    state = select(Run.state).where(Run.id == report.run)
    before = session.exec(state).first()
    apply_many(session, [report])
    return before != session.exec(state).first()


def apply_many(session: Session, reports: Sequence[Report]) -> Applied:
    """Take in reports about runs in the order given. Reports of other kinds are passed over.

    They have been checked: `run.queued` carries a `Queued`, and every run id is one.
    """
    about_runs = [report for report in reports if report.run]
    _fill_in(session, [report for report in about_runs if report.kind is Kind.RUN_QUEUED])
    moving = [report for report in about_runs if report.kind in TARGETS or report.kind is Kind.RUN_PROGRESSED]
    return _move(session, moving)


def known_submissions(session: Session, run_ids: Iterable[str]) -> dict[str, str]:
    """Return which of these runs' `run.queued` have been taken in, with their principals."""
    query = select(Run.id, Run.submitted_by).where(col(Run.id).in_(list(run_ids)), col(Run.task) != "")
    return {run_id: principal for run_id, principal in session.exec(query).all()}  # noqa: C416 - rows, not pairs


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
                "not_before": None if queued.not_before is None else clock.from_unix(queued.not_before),
                "limit_seconds": queued.limit_seconds,
                "max_retries": queued.max_retries,
                "retry_of": queued.retry_of,
                "batch": queued.batch,
                "message": queued.message,
            },
        )

    def complete(statement: bulk.Insert) -> bulk.Insert:
        given = statement.excluded
        filled: dict[str, Any] = {column: given[column] for column in _SUBMITTED}
        # kept for sending again only while the run may still need that
        # constants of ours, written out: as parameters they would be bound anew for every row
        still_open = or_(*(_TABLE.c.state == literal_column(f"'{state.value}'") for state in sorted(OPEN)))
        filled["message"] = case((still_open, given.message), else_=_TABLE.c.message)
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
        "attempt": 1,
        "not_after": None,
        "not_before": None,
        "limit_seconds": None,
        "max_retries": 0,
        "retry_of": None,
        "batch": None,
        "message": None,
    }


def _move(session: Session, reports: Sequence[Report]) -> Applied:
    if not reports:
        return Applied()
    rows = _load(session, sorted({report.run for report in reports if report.run}))
    changed: set[str] = set()
    noted: tries.Tries = {}
    for report in reports:
        if report.run:
            row = rows[report.run]
            if advance(row, report):
                changed.add(report.run)
            begun = row["state"] == RunState.RECOVERING and "attempt" not in (row["progress"] or {})
            tries.note(noted, report, begun=begun and row["attempt"] == report.attempt)
    moved = [rows[run_id] for run_id in sorted(changed)]
    _write(session, moved)
    tries.write(session, noted)
    return Applied(
        settled=tuple((row["id"], RunState(row["state"])) for row in moved if row["was"] == RunState.UNKNOWN),
        handed_back=tuple(row["id"] for row in moved if row["state"] == RunState.QUEUED and row["attempt"] > 1),
    )


def _load(session: Session, ids: Sequence[str]) -> dict[str, Row]:
    """Return the rows of these runs, locked, made where there are none; `was` is the state that is written there."""
    connection = session.connection()
    columns = [_TABLE.c.id, _TABLE.c.state, *(_TABLE.c[name] for name in CHANGING)]
    # locked in one order by everybody; SQLite has one writer anyway
    query = select(*columns).where(_TABLE.c.id.in_(ids)).order_by(_TABLE.c.id).with_for_update()
    rows: dict[str, Row] = {row.id: dict(row._mapping) for row in connection.execute(query)}  # noqa: SLF001
    if missing := [_blank(run_id) for run_id in ids if run_id not in rows]:
        bulk.insert(session, _TABLE, missing, finish=lambda made: made.on_conflict_do_nothing())
        rows = {row.id: dict(row._mapping) for row in connection.execute(query)}  # noqa: SLF001
    for row in rows.values():
        row["was"] = row["state"]
    return rows


def _write(session: Session, rows: Sequence[Row]) -> None:
    """Write each run, by one UPDATE that holds only while the run is still where a legal move begins."""
    still_open = [row for row in rows if row["state"] not in FINAL]
    ended = [{**row, "message": None} for row in rows if row["state"] in FINAL]
    for part, columns in ((still_open, CHANGING), (ended, (*CHANGING, "message"))):
        written = [{name: row[name] for name in ("id", "was", "state", *columns)} for row in part]
        bulk.update(session, _TABLE, written, match={"id": "id", "state": "was"})
