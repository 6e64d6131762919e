"""Looking runs up: one by its id, many by what they have in common, and the tries at one."""

import re

from sqlmodel import Session, col, select

from fleet import errors, names
from fleet.models import Attempt, Run

#: The end of a run id, enough of it not to be a guess.
_ENDING = re.compile(r"[0-9a-f-]{4,36}")


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
