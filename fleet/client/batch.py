"""Batches: the runs of one push, how each of them ended, and waiting for that."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import celery.exceptions
from celery.result import ResultSet

from fleet import errors, names
from fleet.broker.results import awaiting
from fleet.dispatch import RunResult


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    run_id: str
    host: str
    #: succeeded, failed, rejected, expired, cancelled or unknown
    state: str
    #: the reply's fields; None unless succeeded
    reply: dict[str, Any] | None = None
    #: the error that `.get()` would raise; None if succeeded
    error: errors.FleetError | None = None


@dataclass(frozen=True)
class Batch:
    """The runs of one push."""

    task: str
    results: tuple[RunResult, ...]
    #: hosts left out because they are not connected, or take no new work (`offline="skip"`)
    skipped: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(result.id for result in self.results)

    def cancel(self, reason: str = "") -> None:
        """Ask for the end of all runs, see `Fleet.cancel`; `wait` tells what came of it."""
        for result in self.results:
            result.cancel(reason)

    def wait(self, *, timeout: float | None = None) -> Iterator[Outcome]:
        """Yield each run's outcome as it comes.

        Raises `errors.TimedOut` after `timeout` seconds, `errors.BrokerUnavailable`; the runs themselves go on.
        """
        # One connection hears the results of all pushes, so some may have come while others were awaited. Celery's own
        # wait for a set notices only what comes from now on, and would go on waiting when nothing is left to come.
        results: list[Any] = list(self.results)
        known = {result.id: result._cache for result in results if result._cache}  # noqa: SLF001 - as Celery does
        for run_id, meta in known.items():
            yield _outcome(run_id, meta)
        pending = [result for result in results if result.id not in known]
        waiting = {result.id for result in pending}
        if not pending:
            return
        try:
            # Before it listens, Celery looks whether results are there already, and sleeps for `interval` after it.
            with awaiting():
                for run_id, meta in _Awaited(pending, app=pending[0].app).iter_native(timeout=timeout, interval=0):
                    waiting.discard(run_id)
                    yield _outcome(run_id, meta)
                    if not waiting:
                        return
        except celery.exceptions.TimeoutError as exc:
            hosts = ", ".join(sorted(names.host_of_run(run_id) for run_id in waiting))
            raise errors.TimedOut(
                f"no result within {timeout:.3g} s from {hosts}", remedy="the task goes on; see `fleet task show`"
            ) from exc


class _Awaited(ResultSet):
    """Celery's set of results, on the connection that listens for them: that of the thread which pushed."""

    @property
    def backend(self) -> Any:
        results: list[Any] = self.results or []
        return results[0].backend


def _outcome(run_id: str, meta: Mapping[str, Any]) -> Outcome:
    host = names.host_of_run(run_id)
    result = meta["result"]
    if meta["status"] == "SUCCESS":
        return Outcome(run_id, host, "succeeded", reply=result)
    error = result if isinstance(result, errors.FleetError) else errors.TaskFailed(str(result))
    return Outcome(run_id, host, _STATES.get(type(error), "failed"), error=error)


_STATES: dict[type, str] = {
    errors.TaskRejected: "rejected",
    errors.TaskExpired: "expired",
    errors.TaskCancelled: "cancelled",
    errors.OutcomeUnknown: "unknown",
    errors.ResultForged: "unknown",  # what it says is nobody's word: the run may have ended in any way
}
