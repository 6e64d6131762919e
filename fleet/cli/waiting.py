"""Waiting for tasks that were pushed earlier, maybe by somebody else.

A result stays in the broker for a day, the ledger's record for good. Whoever has the database gets an answer for old
tasks, and an error instead of an endless wait for an id that nobody ever used.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.cli import invocation

if TYPE_CHECKING:
    from fleet.client import Batch, Fleet, Outcome
    from fleet.models import Run
    from fleet.settings import Settings

#: How often the ledger is asked while a result is awaited.
_LOOK_SECONDS = 3.0
#: So young, a run may have ended already and be on its way to the ledger.
_RECORDED_WITHIN_SECONDS = 2.0
_MOMENT_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Runs of earlier pushes, to be waited for like those of a `client.Batch`."""

    fleet: "Fleet"
    run_ids: tuple[str, ...]
    id: str | None = None
    task: str | None = None
    skipped: tuple[str, ...] = ()

    def wait(self, *, timeout: float | None = None) -> "Iterator[Outcome]":
        """Yield each run's outcome as it is known.

        Raises `errors.TimedOut` after `timeout` seconds, `errors.NotFound` for a run that was never recorded.
        """
        from fleet import errors

        ends = None if timeout is None else time.monotonic() + timeout
        waiting = list(self.run_ids)
        while True:
            records = _records(self.fleet.settings, waiting)
            ended = [outcome for run in (records or {}).values() if (outcome := _outcome(run))]
            yield from ended
            waiting = [run_id for run_id in waiting if run_id not in {outcome.run_id for outcome in ended}]
            if not waiting:
                return
            left = _LOOK_SECONDS if ends is None else min(_LOOK_SECONDS, ends - time.monotonic())
            try:
                for outcome in self._results(waiting).wait(timeout=max(left, 0.01)):
                    waiting.remove(outcome.run_id)
                    yield outcome
            except errors.TimedOut:
                if ends is not None and time.monotonic() >= ends:
                    raise
            if records is not None:
                self._refuse_unknown([run_id for run_id in waiting if run_id not in records])

    def _results(self, run_ids: Sequence[str]) -> "Batch":
        from fleet.client import Batch

        return Batch("", tuple(self.fleet.dispatcher.result(run_id) for run_id in run_ids))

    def _refuse_unknown(self, run_ids: Sequence[str]) -> None:
        """Raise for runs that the ledger does not know although somebody writes it; a look-up later than the push."""
        from fleet import errors, names

        with invocation.broker(self.fleet.settings) as client:
            recording = client.exists(names.CONTROL_LEASE)
        if run_ids and recording:
            raise errors.NotFound(
                f"no task {run_ids[0]!r} is recorded", remedy="`fleet task list` shows those that are"
            )


@contextmanager
def earlier(settings: "Settings", texts: Sequence[str]) -> "Iterator[Earlier]":
    """Open what waits for the tasks that these words name: ids, or ends of ids where the database is at hand."""
    from fleet import names, runs
    from fleet.client import Fleet

    chosen = []
    for text in texts:
        if ":" in text:
            names.host_of_run(text)
            chosen.append(text)
        else:
            with invocation.database(settings) as session:
                chosen.append(runs.named(session, text).id)
    with Fleet(settings) as fleet:
        yield Earlier(fleet=fleet, run_ids=tuple(dict.fromkeys(chosen)))


def refuse_unknown(settings: "Settings", run_ids: Sequence[str]) -> None:
    """Raise `errors.NotFound` for a run that the ledger does not know, where there is a ledger."""
    from fleet import errors

    for run_id in run_ids:
        await_record(settings, run_id)
    records = _records(settings, run_ids)
    for run_id in run_ids:
        if records is not None and run_id not in records:
            raise errors.NotFound(f"no task {run_id!r} is recorded", remedy="`fleet task list` shows those that are")


def await_record(settings: "Settings", text: str) -> None:
    """Wait until a task that was pushed only just now is recorded, where there is a ledger; any other, not at all.

    Raises `errors.InvalidValue` for an id that is none.
    """
    while ":" in text and _is_under_way(text):
        records = _records(settings, [text])
        if records is None or text in records:
            return
        time.sleep(_MOMENT_SECONDS)


def _is_under_way(run_id: str) -> bool:
    """Say whether a run that is not in the ledger may be in a moment."""
    from fleet import names

    names.host_of_run(run_id)
    return 0 <= names.age_of_run(run_id) < _RECORDED_WITHIN_SECONDS


def has_ended(settings: "Settings", run_id: str) -> bool:
    """Say whether the ledger, where there is one, has the end of that run: its result may be gone by now."""
    from fleet import runs

    found = (_records(settings, [run_id]) or {}).get(run_id)
    return found is not None and runs.is_final(found.state)


def _records(settings: "Settings", run_ids: Sequence[str]) -> "dict[str, Run] | None":
    """Return what the ledger has of these runs; None where there is no ledger here."""
    from sqlmodel import col, select

    from fleet import errors
    from fleet.models import Run

    try:
        with invocation.database(settings) as session:
            return {run.id: run for run in session.exec(select(Run).where(col(Run.id).in_(run_ids))).all()}
    except errors.DatabaseUnavailable:
        return None


def _outcome(run: "Run") -> "Outcome | None":
    """Return how a recorded run ended; None while it has not."""
    from fleet import runs
    from fleet.broker.results import error_from
    from fleet.client import Outcome

    if not runs.is_final(run.state):
        return None
    error = error_from({"state": run.state, **(run.error or {})}) if run.state != "succeeded" else None
    return Outcome(run.id, run.host_id, run.state, reply=run.reply, error=error)
