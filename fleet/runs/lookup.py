"""Looking runs up: one by its id, many by what they have in common, and the tries at one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, false, or_, tuple_
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from fleet import db, errors, labeling, names
from fleet.models import Attempt, Host, Run


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Which runs somebody gets to see: those it has pushed itself, and those of the hosts of a selector."""

    principal: str
    #: the labels that hosts must have; None for no host at all
    selector: Mapping[str, str] | None

    def has(self, session: Session, *, host: str, submitted_by: str) -> bool:
        """Say whether a run of that host and that principal is in sight."""
        if submitted_by == self.principal:
            return True
        return session.exec(self._hosts().where(col(Host.id) == host)).first() is not None

    def condition(self, *, host: Any, submitted_by: Any) -> ColumnElement[bool]:
        """Return the same for a query, of the columns that say so."""
        return or_(submitted_by == self.principal, host.in_(self._hosts()))

    def _hosts(self) -> SelectOfScalar[str]:
        where = [false()] if self.selector is None else labeling.having(Host.labels, self.selector)
        return select(Host.id).where(*where)


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
    if ":" in text or not names.RUN_ENDING.fullmatch(text):
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
    before: str | None = None,
    sight: Sight | None = None,
    limit: int = 50,
) -> list[Run]:
    """Return runs that match all that is given, newest first; with `before` those that follow that run in the list.

    `sight` leaves out what is not for everybody's eyes. Raises as `get` does for `before`.
    """
    query = select(Run).order_by(col(Run.submitted_at).desc(), col(Run.id).desc()).limit(limit)
    query = db.narrowed(query, (Run.host_id, host), (Run.state, state), (Run.task, task), (Run.batch, batch))
    if before is not None:
        last = get(session, before)
        query = query.where(tuple_(col(Run.submitted_at), col(Run.id)) < (last.submitted_at, last.id))
    if sight is not None:
        query = query.where(sight.condition(host=col(Run.host_id), submitted_by=col(Run.submitted_by)))
    return list(session.exec(query).all())


def attempts(session: Session, run_id: str) -> list[Attempt]:
    """Return the tries at a run, first to last."""
    return list(session.exec(select(Attempt).where(Attempt.run_id == run_id).order_by(col(Attempt.number))).all())
