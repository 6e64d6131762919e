"""Settling: what the control plane itself makes of a run that waits in a queue, or whose host has fallen silent.

A run that it ends keeps its message until the result is where callers wait for it: a message on a run that has ended
says that this is still to be done, also to whoever comes after a crash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Table, update
from sqlmodel import Session, col, select

from fleet.models import Attempt, Run, RunState
from fleet.runs import tries
from fleet.runs.states import OPEN

_TABLE: Table = Run.__table__  # type: ignore[attr-defined]
_ATTEMPTS: Table = Attempt.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How the control plane ends a run, and why."""

    run: str
    state: RunState
    #: for programs; in `error` of the run and in its result
    kind: str
    #: a sentence for people
    message: str
    #: the attempt at which the run was when this was decided
    attempt: int
    #: the states in which it may still be
    expected: frozenset[RunState]


def settle(session: Session, verdicts: Mapping[str, Verdict], *, at: datetime) -> list[Run]:
    """End these runs (by their ids) and return those that are ended by it: a host may have been faster."""
    rows = session.exec(_locked(verdicts)).all()
    settled = []
    for run in rows:
        verdict = verdicts[run.id]
        if RunState(run.state) not in verdict.expected or run.attempt != verdict.attempt:
            continue
        run.state, run.finished_at = verdict.state.value, at
        run.error = {"kind": verdict.kind, "message": verdict.message}
        settled.append(run)
    if unknown := [run.id for run in settled if run.state == RunState.UNKNOWN]:
        session.execute(
            update(_ATTEMPTS)
            .where(_ATTEMPTS.c.run_id.in_(unknown), _ATTEMPTS.c.state.in_(tries.OPEN))
            .values(state=RunState.UNKNOWN.value, finished_at=at)
        )
    session.flush()
    return settled


def mark_sent(session: Session, run_ids: Iterable[str], *, at: datetime) -> list[Run]:
    """Note that the messages of these runs are sent again now; return those that still wait for that."""
    waiting = [run for run in session.exec(_locked(run_ids)).all() if run.state == RunState.QUEUED and run.message]
    for run in waiting:
        run.sent_again_at = at
    session.flush()
    return waiting


def let_go(session: Session, run_ids: Iterable[str]) -> None:
    """Forget the messages of runs that have ended: their results have been written."""
    session.execute(
        update(_TABLE).where(_TABLE.c.id.in_(list(run_ids)), _TABLE.c.state.not_in(OPEN)).values(message=None)
    )


def _locked(run_ids: Iterable[str]):  # type: ignore[no-untyped-def]  # SQLAlchemy's own
    query = select(Run).where(col(Run.id).in_(list(run_ids))).order_by(col(Run.id))
    return query.with_for_update().execution_options(populate_existing=True)
