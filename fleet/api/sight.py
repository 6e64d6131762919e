"""Sight: which hosts and runs a caller gets to see.

Everybody sees the hosts that its selectors name, and what it has asked for itself. Who may change something on hosts
sees all runs there; who may approve sees what waits there; a token of scope audit sees everything, while its principal
is autonomous for all hosts. What is out of sight is not found: the answer is that of a run or a host
that does not exist. Where hosts are pushed to, the caller's `Fleet` sees to that (`in_sight_only`), by the credential
that the hosts go by.
"""

from sqlmodel import Session

from fleet import errors, runs
from fleet.api.callers import Caller
from fleet.contracts import Risk
from fleet.models import Run
from fleet.runs import Sight


def selector(caller: Caller) -> dict[str, str]:
    """Return the labels of the hosts that this caller sees; none for all."""
    return caller.bearer.selectors


def of_runs(caller: Caller) -> Sight | None:
    """Return which runs this caller sees; None for all."""
    return _of(caller, everywhere=caller.bearer.level.may(Risk.CHANGES))


def of_approvals(caller: Caller) -> Sight | None:
    """Return whose requests this caller sees waiting; None for all."""
    return _of(caller, everywhere=caller.bearer.level.may(Risk.CHANGES) or bool(caller.bearer.approves))


def run(session: Session, caller: Caller, text: str) -> Run:
    """Return a run that this caller sees, by its id or the end of it; raise `errors.NotFound` for all others."""
    unknown = errors.NotFound(f"no run {text!r} is recorded", remedy="GET /api/runs lists them")
    try:
        row = runs.named(session, text)
    except errors.UsageError:
        raise unknown from None
    visible = of_runs(caller)
    if visible and not visible.has(session, host=row.host_id, submitted_by=row.submitted_by):
        raise unknown
    return row


def _of(caller: Caller, *, everywhere: bool) -> Sight | None:
    if caller.bearer.reads_all or (everywhere and not caller.bearer.selectors):
        return None
    return Sight(principal=caller.name, selector=caller.bearer.selectors if everywhere else None)
