"""Tries: the record of each attempt at a run, from what its host reports.

An attempt is `running`, `recovering` while somebody finds out what a dead worker left, and ends as the run may end, or
`interrupted`: cut short, and followed by another. Of several reports the one that knows more counts (`_RANKS`), of
equals the first, so their order does not matter.
"""

from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Table, case, func, literal_column
from sqlmodel import Session

from fleet import bulk, clock
from fleet.contracts.reports import Kind, Report
from fleet.models import Attempt, RunState
from fleet.runs.states import TARGETS

#: State of an attempt that was cut short, and another followed.
INTERRUPTED = "interrupted"
_RANKS: MappingProxyType[str, int] = MappingProxyType(
    {
        RunState.RUNNING.value: 1,
        RunState.RECOVERING.value: 2,
        INTERRUPTED: 3,
        RunState.UNKNOWN.value: 3,
        RunState.SUCCEEDED.value: 4,
        RunState.FAILED.value: 4,
        RunState.CANCELLED.value: 4,
    }
)
#: States of an attempt that has not ended.
OPEN = (RunState.RUNNING.value, RunState.RECOVERING.value)
_ENDS = frozenset({Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED, Kind.RUN_UNKNOWN})
_TABLE: Table = Attempt.__table__  # type: ignore[attr-defined]

#: Attempts by run id and number, by the names of their columns.
Tries = dict[tuple[str, int], dict[str, Any]]


def note(tries: Tries, report: Report, *, begun: bool) -> None:
    """Note what a report says about one try, or about the one before it; `begun` says that its own has begun."""
    number = report.attempt
    if number is None:
        return
    if report.kind is Kind.RUN_STARTED:
        _take(tries, report, number, RunState.RUNNING.value)
    elif report.kind is Kind.RUN_RECOVERING and begun:
        _take(tries, report, number, RunState.RECOVERING.value)
    elif report.kind in _ENDS and report.data.get("begun", True):
        _take(tries, report, number, TARGETS[report.kind].value)
    elif number > 1 and report.kind is Kind.RUN_RETRYING:
        _take(tries, report, number - 1, RunState.FAILED.value)
    elif number > 1 and report.kind in {Kind.RUN_RECOVERING, Kind.RUN_HANDED_BACK}:
        _take(tries, report, number - 1, INTERRUPTED)


def write(session: Session, tries: Tries) -> None:
    """Write tries down, over what is known of them."""

    def complete(statement: bulk.Insert) -> bulk.Insert:
        given, kept = statement.excluded, _TABLE.c
        knows_more = _rank(given.state) > _rank(kept.state)
        values: dict[str, Any] = {
            name: case((knows_more, given[name]), else_=kept[name])
            for name in ("state", "finished_at", "duration_seconds")
        }
        values["started_at"] = func.coalesce(kept.started_at, given.started_at)
        return statement.on_conflict_do_update(index_elements=["run_id", "number"], set_=values)

    bulk.insert(session, _TABLE, [tries[key] for key in sorted(tries)], finish=complete)


def _rank(state: ColumnElement[str]) -> ColumnElement[int]:
    # constants of ours, written out: as parameters they would be bound anew for every row
    return case(
        *((state == literal_column(f"'{name}'"), literal_column(str(rank))) for name, rank in _RANKS.items()),
        else_=literal_column("0"),
    )


def _take(tries: Tries, report: Report, number: int, state: str) -> None:
    at, ended = clock.from_unix(report.at), state not in OPEN
    told = report.data.get("duration_seconds") if ended else None
    given = {
        "run_id": report.run,
        "number": number,
        "state": state,
        "epoch": report.epoch,
        "started_at": at if state == RunState.RUNNING else None,
        "finished_at": at if ended else None,
        "duration_seconds": float(told) if isinstance(told, (int, float)) else None,
    }
    kept = tries.setdefault((report.run or "", number), given)
    if _RANKS[state] > _RANKS[kept["state"]]:
        kept.update(state=state, finished_at=given["finished_at"], duration_seconds=given["duration_seconds"])
    kept["started_at"] = kept["started_at"] or given["started_at"]
