"""Forgetting: runs that a host took and that its journal, as a new session finds it, does not hold.

A host that stops puts what it has not begun back into its queue; a machine that loses power may forget what was not on
its disk yet; a journal may be moved away. Such runs are queued anew, and begin with their first attempt again.

Whether that may repeat an effect decides who is sent again. The claim of a run that must not be done twice is on disk
before its effect, so in the same journal a run that never began has had none. In another journal nobody can know: such
a run goes on only where its message still lies in the broker, and is `unknown` where it does not (`doubted_at`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Table, delete
from sqlmodel import Session, col, select

from fleet import errors
from fleet.contracts import registry
from fleet.models import Attempt, Host, Run, RunState
from fleet.runs.settling import Verdict

_ATTEMPTS: Table = Attempt.__table__  # type: ignore[attr-defined]
#: States of runs that a journal holds.
_HELD = frozenset({RunState.AWAITING_APPROVAL, RunState.ACCEPTED, RunState.RUNNING, RunState.RECOVERING})
#: Of these, where nothing has begun as far as its host has told.
_TAKEN = frozenset({RunState.AWAITING_APPROVAL, RunState.ACCEPTED})


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What a new session of a host says of its journal."""

    host: str
    at: datetime
    #: identifies the journal file; None from workers that do not say
    journal: str | None
    #: all runs in it that have not ended; None where they are too many to say
    unfinished: frozenset[str] | None


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What became of the runs that a host has forgotten."""

    #: run id → state and attempt at which it was; queued anew
    requeued: dict[str, tuple[RunState, int]]
    #: begun, and must not begin again
    lost: tuple[Verdict, ...] = ()


def forget_missing(session: Session, registration: Registration, *, told_since: Sequence[str]) -> Forgotten:
    """Queue anew what the host has forgotten, and remember its journal.

    `told_since` are runs of which this session of the host has spoken after it registered: it has them.
    """
    host = session.get(Host, registration.host)
    if host is None or registration.journal is None:
        return Forgotten(requeued={})
    same = host.journal in (None, registration.journal)
    host.journal = registration.journal
    session.add(host)
    if registration.unfinished is None:
        return Forgotten(requeued={})
    held = registration.unfinished.union(told_since)
    query = select(Run).where(Run.host_id == registration.host, col(Run.state).in_(_HELD)).order_by(col(Run.id))
    rows = session.exec(query.with_for_update().execution_options(populate_existing=True)).all()
    requeued: dict[str, tuple[RunState, int]] = {}
    lost = []
    for run in rows:
        if run.id in held:
            continue
        state = RunState(run.state)
        never_began = state in _TAKEN and run.started_at is None
        harmless = _idempotent(run.task) or (same and never_began)
        if harmless or never_began:
            requeued[run.id] = (state, run.attempt)
            _queue_anew(run, doubted_at=None if harmless else registration.at)
        else:
            lost.append(_lost(run))
    if requeued:
        # the host counts from one again
        session.execute(delete(_ATTEMPTS).where(_ATTEMPTS.c.run_id.in_(list(requeued))))
    session.flush()
    return Forgotten(requeued=requeued, lost=tuple(lost))


def _idempotent(task: str) -> bool:
    try:
        return registry.get(task).idempotent
    except errors.UnknownTask:
        return False  # a contract of a package that is not installed here: nobody says that it may run twice


def _queue_anew(run: Run, *, doubted_at: datetime | None) -> None:
    run.state, run.attempt = RunState.QUEUED.value, 1
    run.assigned_at = run.started_at = run.sent_again_at = None
    doubt = {} if doubted_at is None else {"doubted_at": doubted_at.timestamp()}
    run.progress = {"step": "its host does not have it any more", "percent": None, "attempt": 1, **doubt}


def _lost(run: Run) -> Verdict:
    return Verdict(
        run=run.id,
        state=RunState.UNKNOWN,
        kind="forgotten",
        message="its host's journal does not hold it any more; whether it had its effect is not known",
        attempt=run.attempt,
        expected=_HELD,
    )
