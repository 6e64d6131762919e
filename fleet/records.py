"""Records: what became of all that a principal has asked for, for whoever decides how far it is trusted.

Counted from the ledger each time, so a record says what is true now and is nowhere kept. Only runs that the principal
itself has reported as pushed count: a host that speaks of others in its name adds nothing. A record changes no level;
only `principals.set_level` does.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, func, select

from fleet.contracts.verdicts import Decision
from fleet.models import Approval, ApprovalState, Run, RunState, ShellSession


@dataclass(frozen=True, kw_only=True)
class Record:
    """How many runs of a principal came to what."""

    runs: int
    succeeded: int
    failed: int
    cancelled: int
    #: begun, and nobody can say what became of them
    unknown: int
    #: refused by hosts, for whatever reason; they never ran
    rejected: int
    #: commands and files that hosts denied, by the policy or before it was asked; but for those that came too late
    denied_by_policy: int
    #: that had to wait for somebody's word, and what came of that
    asked: int
    waiting: int
    approved: int
    denied: int
    #: nobody answered in time
    expired: int
    #: when the first and the newest were pushed; None where there are none
    since: datetime | None
    last: datetime | None


def of(session: Session, name: str) -> Record:
    """Return the record of the principal of that name; it is empty for one that has pushed nothing."""
    pushed = select(Run.state, func.count(), func.min(Run.submitted_at), func.max(Run.submitted_at))
    rows = session.exec(pushed.where(Run.submitted_by == name).group_by(Run.state)).all()
    states = {state: count for state, count, _, _ in rows}
    answers = _answers(session, name)
    denied = select(func.count()).join(Run, col(Run.id) == col(ShellSession.run_id))
    denied = denied.where(
        Run.submitted_by == name, ShellSession.decision == Decision.DENY, ShellSession.reason != "expired"
    )
    return Record(
        runs=sum(states.values()),
        succeeded=states.get(RunState.SUCCEEDED, 0),
        failed=states.get(RunState.FAILED, 0),
        cancelled=states.get(RunState.CANCELLED, 0),
        unknown=states.get(RunState.UNKNOWN, 0),
        rejected=states.get(RunState.REJECTED, 0),
        denied_by_policy=session.exec(denied.select_from(ShellSession)).one(),
        asked=sum(answers.values()),
        waiting=answers.get(ApprovalState.PENDING, 0),
        approved=answers.get(ApprovalState.APPROVED, 0),
        denied=answers.get(ApprovalState.DENIED, 0),
        expired=answers.get(ApprovalState.EXPIRED, 0),
        since=min((first for _, _, first, _ in rows), default=None),
        last=max((last for _, _, _, last in rows), default=None),
    )


def _answers(session: Session, name: str) -> dict[str, int]:
    query = select(Approval.state, func.count()).join(Run, col(Run.id) == col(Approval.run_id))
    return dict(session.exec(query.where(Run.submitted_by == name).group_by(Approval.state)).all())
