"""Advancing: what one report of a host makes of a run's row, in memory. Nothing here touches the database.

The pair (attempt, state) only moves forward. Within an attempt `recovering` has two places: before the attempt has
begun (the one before it was cut short, and this one is to come), and after (its worker ended, and somebody looks what
became of it). Which of the two it is, `progress` says: `{"attempt": n}` names an attempt that is to come.
"""

from typing import Any

from fleet import clock
from fleet.contracts.reports import Kind, Report
from fleet.models import RunState
from fleet.runs.states import FINAL, MOVES, TARGETS

#: A run as far as reports change it, by the names of its columns.
Row = dict[str, Any]
#: Columns that a host's reports change, beside `state` and `message`.
CHANGING = ("attempt", "assigned_at", "started_at", "finished_at", "progress", "reply", "error")


def advance(row: Row, report: Report) -> bool:
    """Move a run along a report; return whether anything changed."""
    if report.kind is Kind.RUN_PROGRESSED:
        return _note_progress(row, report)
    target = TARGETS[report.kind]
    # an end without a number is the end of whatever the run has come to; a beginning without one is the first
    attempt = report.attempt or (row["attempt"] if target in FINAL else 1)
    if not _may_follow(row, attempt, target):
        return False
    to_come = attempt > row["attempt"] or row["state"] in {RunState.QUEUED, RunState.ACCEPTED}
    progress = _progress_of(report, attempt, to_come=to_come)
    row.update(state=target.value, attempt=attempt)
    if target in FINAL:
        _end(row, target, report)
    else:
        row["progress"] = progress
    at = clock.from_unix(report.at)
    if target not in {RunState.QUEUED, RunState.REJECTED, RunState.EXPIRED}:
        row["assigned_at"] = row["assigned_at"] or at
    if target is RunState.RUNNING:
        row["started_at"] = row["started_at"] or at
    return True


def _may_follow(row: Row, attempt: int, target: RunState) -> bool:
    state = RunState(row["state"])
    if attempt < row["attempt"]:
        return False
    if state in FINAL:
        return target in MOVES[state]
    if attempt > row["attempt"]:
        return True
    if state is RunState.RECOVERING and target in {RunState.RUNNING, RunState.EXPIRED}:
        return (row["progress"] or {}).get("attempt") == attempt
    return target in MOVES[state]


def _note_progress(row: Row, report: Report) -> bool:
    if RunState(row["state"]) in FINAL or (report.attempt or row["attempt"]) < row["attempt"]:
        return False
    waiting = {"attempt": row["progress"]["attempt"]} if "attempt" in (row["progress"] or {}) else {}
    row["progress"] = {"step": report.data.get("step"), "percent": report.data.get("percent"), **waiting}
    return True


def _progress_of(report: Report, attempt: int, *, to_come: bool) -> dict[str, Any] | None:
    """Return what is shown of a run that waits, or is looked into; None for one that has just come or begun."""
    data = report.data
    if report.kind is Kind.RUN_RECOVERING:
        step = "begins again" if to_come else "its worker ended; what became of it is being found out"
        return {"step": step, "percent": None, "how": data.get("how"), **({"attempt": attempt} if to_come else {})}
    if report.kind is Kind.RUN_AWAITING_APPROVAL:
        return {"step": "waits for approval", "percent": None, "approve_before": data.get("approve_before")}
    if report.kind is Kind.RUN_APPROVED:
        return {"step": f"approved by {data.get('by')}", "percent": None, "run_before": data.get("run_before")}
    if report.kind is Kind.RUN_HANDED_BACK:
        return {"step": "handed back by its host; it is sent again", "percent": None, "attempt": attempt}
    if report.kind is Kind.RUN_RETRYING:
        error = {"kind": data.get("kind"), "message": data.get("message")}
        step = "waits for its next attempt"
        return {
            "step": step,
            "percent": None,
            "attempt": attempt,
            "not_before": data.get("not_before"),
            "error": error,
        }
    return None


def _end(row: Row, target: RunState, report: Report) -> None:
    data = report.data
    row["finished_at"] = clock.from_unix(report.at)
    row["error"] = None
    if "approve_before" in (row["progress"] or {}):  # it waits no more
        row["progress"] = None
    match target:
        case RunState.SUCCEEDED:
            row["reply"] = data.get("reply")
        case RunState.FAILED:
            row["error"] = {"kind": data.get("kind", "failed"), "message": data.get("message", "")}
        case RunState.REJECTED:
            row["error"] = {"kind": data.get("reason", "rejected"), "message": data.get("detail", "")}
        case RunState.EXPIRED:
            what = "it" if row["attempt"] <= 1 else f"attempt {row['attempt']} at it"
            row["error"] = {"kind": "expired", "message": f"its time was over before {what} began"}
        case RunState.CANCELLED:
            reason = f": {data['reason']}" if data.get("reason") else ""
            row["error"] = {"kind": "cancelled", "message": f"cancelled by {data.get('by', 'its host')}{reason}"}
        case _:
            row["error"] = {"kind": "unknown", "message": data.get("message", "")}
