"""The pipeline: how an admitted run is carried out, on a pool thread.

    claim → secure → perform → settle

The claim is in the journal before any effect, and so is what becomes of it afterwards, reply or error, together with
its report. An error of any kind ends as `run.failed`, never as a run that nobody hears of again.

Fleet's own contracts are performed on the pool's thread: all they do is call the Engine, and each call has its
time-out. Those that are `attached` leave the pool's thread at once for one of their own (`workers.host.attached`).
What packages bring is performed in a process of its own, which can be ended.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from celery import Celery, Task

from fleet import canonical, errors, logs
from fleet.contracts import AnyContract, Restart, registry
from fleet.contracts.envelope import Limits
from workers.host.attached import MOST_ATTACHED, Attached
from workers.host.children import Children, Job
from workers.host.deadlines import Deadlines
from workers.host.endings import Endings
from workers.host.handover import Handover, Superseded
from workers.host.journal import Claim, Journal
from workers.host.replies import MAX_ERROR_CHARACTERS, checked_reply
from workers.host.run import HasDocker, Run
from workers.host.running import EndRequest, Running, Why
from workers.host.settling import Settling
from workers.host.streams import OwnPerformer, Streams

log = logs.get(__name__)

_MAYBE_AT_IT = "; the Engine may still be at it"


class Pipeline:
    """Carries out admitted runs."""

    def __init__(
        self,
        *,
        host: str,
        journal: Journal,
        endings: Endings,
        settling: Settling,
        handover: Handover,
        running: Running,
        deadlines: Deadlines,
        children: Children,
        streams: Streams,
        performers: Mapping[str, OwnPerformer],
        engine: HasDocker,
        on_unusable: Callable[[Exception], None],
    ) -> None:
        self._host = host
        self._journal = journal
        self._endings = endings
        self._settling = settling
        self._handover = handover
        self._running = running
        self._deadlines = deadlines
        self._children = children
        self._streams = streams
        self._attached = Attached()
        self._performers = performers
        self._engine = engine
        self._on_unusable = on_unusable

    def carry_out(self, contract: AnyContract, run_id: str) -> None:
        """Carry out one attempt at a run, once; raises the error it ended with, which is in the journal by then.

        An attached run goes on when this returns.
        """
        goes_on = False
        try:
            claim = self._running.claim(run_id) or self._journal.claim(
                run_id, durable=contract.restart is not Restart.RERUN, held=self._handover.holds(run_id)
            )
            if claim is None:  # it has ended before it began
                self._handover.release(run_id)
                return
            try:
                self._handover.secure(run_id)
            except Superseded:
                log.warning("run.superseded", run=run_id, next="it begins where its message is now")
                self._journal.disown(run_id)
                return
            if contract.perform:
                self._perform_in_child(contract, claim)
            elif contract.attached:
                goes_on = self._attach(contract, claim)
            else:
                self._perform_here(contract, claim)
        except sqlite3.Error as exc:  # what becomes of the run cannot be written down; the next session decides
            self._on_unusable(exc)
            raise
        finally:
            if not goes_on:
                self._running.leave(run_id)

    def give_up(self, run_id: str, problem: str) -> None:
        """End a run that is in the journal and cannot be handed to the pool."""
        if claim := self._running.claim(run_id) or self._journal.claim(run_id, durable=False):
            message = canonical.text(problem)
            self._endings.fail_for_good(claim, kind="internal_error", message=message, duration_seconds=0.0)
        self._handover.release(run_id)

    def _attach(self, contract: AnyContract, claim: Claim) -> bool:
        """Have a run carried out beside the pool; return whether it is, because there was a place."""
        if self._attached.start(claim.run_id, partial(self._perform_beside, contract, claim)):
            return True
        message = f"{MOST_ATTACHED} tasks follow something here already; end one of them, or try again later"
        self._endings.fail(claim, kind="too_many_streams", message=message, duration_seconds=0.0)
        raise errors.TaskFailed(message, kind="too_many_streams")

    def _perform_beside(self, contract: AnyContract, claim: Claim) -> None:
        try:
            self._perform_here(contract, claim)
        except errors.FleetError as exc:
            log.info("run.failed", run=claim.run_id, task=claim.task, error=str(exc))
        except sqlite3.Error as exc:
            self._on_unusable(exc)
        finally:
            self._running.leave(claim.run_id)

    def _perform_here(self, contract: AnyContract, claim: Claim) -> None:
        started = time.monotonic()
        limit = _limits(contract, claim).hard_seconds
        run = self._run(claim)

        def took() -> float:
            return round(time.monotonic() - started, 6)

        def fail(kind: str, message: str) -> None:
            self._endings.fail(claim, kind=kind, message=message[:MAX_ERROR_CHARACTERS], duration_seconds=took())

        def end(request: EndRequest) -> None:
            # An ordinary call of the Engine cannot be called back; the run ends for whoever waits.
            if request.why is Why.CANCELLED and request.cancel:
                run.end()
                self._endings.cancel(claim, request.cancel)
            elif contract.attached:
                run.end()
                self._settling.after_stop(claim, took())

        def be_late() -> None:
            run.end()
            fail("time_limit", f"not done after {limit:g} s" + ("" if contract.attached else _MAYBE_AT_IT))

        self._running.begin(claim.run_id, end, attached=contract.attached)
        deadline = self._deadlines.set(limit, be_late)
        try:
            if run.ended():
                return
            reply = self._reply(contract, claim, run)
        except errors.FleetError as exc:
            if not run.ended():
                fail(exc.kind if isinstance(exc, errors.TaskFailed) else exc.code, str(exc))
            raise
        except BaseException as exc:  # a performer may raise anything; its run must end all the same
            log.exception("run.broken", run=claim.run_id, task=claim.task)
            if not run.ended():
                fail("internal_error", f"{type(exc).__name__}: {exc}")
            raise errors.TaskFailed(f"{type(exc).__name__}: {exc}", kind="internal_error") from exc
        finally:
            self._deadlines.clear(deadline)
        if not run.ended():  # else whoever ended it writes down how, there as here
            self._endings.succeed(claim, reply=reply, duration_seconds=took())

    def _run(self, claim: Claim) -> Run:
        envelope = claim.envelope
        return Run(
            run_id=claim.run_id,
            host=self._host,
            attempt=claim.attempt,
            description=envelope.description,
            metadata=envelope.metadata,
            submitted_by=envelope.submitted_by,
            _report=lambda step, percent: self._endings.progress(claim, step=step, percent=percent),
            _engine=self._engine,
            _open_stream=self._streams.open,
        )

    def _reply(self, contract: AnyContract, claim: Claim, run: Run) -> dict[str, Any]:
        with closing(run):  # whoever sees the end has seen all that was said
            return checked_reply(contract, self._performers[contract.name](contract.parse(claim.arguments), run))

    def _perform_in_child(self, contract: AnyContract, claim: Claim) -> None:
        envelope, limits = claim.envelope, _limits(contract, claim)
        job = Job(
            run_id=claim.run_id,
            attempt=claim.attempt,
            task=contract.name,
            arguments=claim.arguments,
            host=self._host,
            description=envelope.description,
            metadata=envelope.metadata,
            submitted_by=envelope.submitted_by,
            soft_seconds=limits.soft_seconds,
            hard_seconds=limits.hard_seconds,
        )

        def end(request: EndRequest) -> None:
            self._children.end(claim.run_id, why="cancelled" if request.why is Why.CANCELLED else "stopped")

        self._running.begin(claim.run_id, end)
        try:
            ending = self._children.run(
                job, on_progress=lambda step, percent: self._endings.progress(claim, step=step, percent=percent)
            )
        except errors.FleetError as exc:  # it did not begin
            self._endings.fail(claim, kind=exc.code, message=str(exc), duration_seconds=0.0)
            raise
        if ending is None:
            self._endings.recover(claim, how=self._settling.restart(claim).value)
            self._settling.by_contract(claim)
        elif ending.kind == "stopped":
            return  # the next session finds it in the spool, and decides
        else:
            self._settling.by_ending(claim, ending, self._running.requested(claim.run_id))
        self._children.forget(claim.run_id, claim.attempt)
        if ending and ending.kind == "failed":
            kind, message = ending.error or ("failed", "")
            raise errors.TaskFailed(message, kind=kind)


def _limits(contract: AnyContract, claim: Claim) -> Limits:
    return claim.envelope.limits or Limits(hard_seconds=contract.limit.total_seconds())


class HostTask(Task):  # type: ignore[type-arg]
    """A contract as a Celery task of the host's side."""

    ignore_result = True  # the outbox writes results, together with the journal
    typing = False
    #: errors that are outcomes, not surprises: Celery must not print their tracebacks
    throws = (errors.FleetError,)

    def __init__(self, contract: AnyContract, pipeline: Pipeline) -> None:
        self.name = contract.name
        self._contract = contract
        self._pipeline = pipeline

    def run(self, *_args: Any, **_arguments: Any) -> None:
        # Arguments are read from the journal: what Celery made of them has been through its own hands.
        self._pipeline.carry_out(self._contract, str(self.request.id))


def register(app: Celery, pipeline: Pipeline) -> None:
    """Register a Celery task for every contract known here."""
    for contract in registry.known().values():
        app.register_task(HostTask(contract, pipeline))
