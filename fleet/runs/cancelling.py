"""Cancelling: who asked for the end of a run, written down once. Whether it ends so is told by its state."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from fleet import clock
from fleet.contracts.reports import Report
from fleet.models import Run, RunState
from fleet.runs.states import OPEN

#: Who asked is one sender and the host is another: the host's report of the end may be taken in before the request.
_CANCELLABLE = OPEN | {RunState.CANCELLED}


@dataclass(frozen=True, kw_only=True)
class CancelRequest:
    """One request, with what it met."""

    report: Report
    #: where the run was; None where there is no such run
    state: RunState | None
    #: whether it is the one that counts
    first: bool = False
    #: whether it has been taken in before
    repeated: bool = False


def request_cancels(session: Session, reports: Sequence[Report]) -> list[CancelRequest]:
    """Write down requests (`run.cancel_requested`) in the order given; a run that has ended is left as it is.

    One that ended as cancelled did so because of a request: the first one heard of counts, though its end came before.
    """
    if not reports:
        return []
    query = select(Run).where(col(Run.id).in_({report.run for report in reports})).order_by(col(Run.id))
    found = {run.id: run for run in session.exec(query.with_for_update().execution_options(populate_existing=True))}
    return [_request(found.get(report.run or ""), report) for report in reports]


def _request(run: Run | None, report: Report) -> CancelRequest:
    if run is None:
        return CancelRequest(report=report, state=None)
    state, by, at = RunState(run.state), report.sender.removeprefix("p:"), clock.from_unix(report.at)
    if (run.cancel_requested_by, run.cancel_requested_at) == (by, at):
        return CancelRequest(report=report, state=state, repeated=True)
    first = run.cancel_requested_at is None and state in _CANCELLABLE
    if first:
        run.cancel_requested_at, run.cancel_requested_by = at, by
    return CancelRequest(report=report, state=state, first=first)
