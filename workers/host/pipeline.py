"""The pipeline: how an admitted run is carried out, on a pool thread.

    claim → secure → perform → settle

The claim is in the journal before any effect, and so is what becomes of it afterwards, reply or error, together with
its report. An error of any kind ends as `run.failed`, never as a run that nobody hears of again.

Fleet's own contracts are performed on the pool's thread: all they do is call the Engine, and each call has its
time-out. Those that are `attached` leave the pool's thread at once for one of their own (`workers.host.attached`), and
so do commands (`workers.host.commands`). What packages bring is performed in a process of its own, which can be ended.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from types import MappingProxyType
from typing import Any

from fleet import canonical, errors, logs
from fleet.contracts import AnyContract, Restart
from fleet.contracts.envelope import Limits
from fleet.contracts.shell import RUN
from fleet.contracts.verdicts import SessionEnded
from workers.host import outcomes
from workers.host.attached import MOST_ATTACHED, Attached
from workers.host.children import Children
from workers.host.claim import Claim
from workers.host.commands import MOST_COMMANDS, Commands, Governor
from workers.host.deadlines import Deadlines
from workers.host.endings import Endings
from workers.host.handover import Handover, Superseded
from workers.host.job import Job
from workers.host.journal import Journal
from workers.host.replies import MAX_ERROR_CHARACTERS, checked_reply
from workers.host.run import HasDocker, Run
from workers.host.running import EndRequest, Running, Why
from workers.host.settling import Settling
from workers.host.streams import OwnPerformer, Streams

log = logs.get(__name__)

_MAYBE_AT_IT = "; the Engine may still be at it"
_DISK_MAYBE_AT_IT = "; the file system may still be at it"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


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
        governor: Governor | None = None,
        commands: Commands | None = None,
    ) -> None:
        """Without `commands` none is run on this host. The governor is asked once more about what somebody approved."""
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
        self._governor = governor
        self._commands = commands
        self._beside = Attached(MOST_COMMANDS)
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
                log.warning("run.superseded", **claim.about, next="it begins where its message is now")
                self._journal.disown(run_id)
                return
            self._require_grant(contract, claim)
            if contract.perform:
                self._perform_in_child(contract, claim)
            elif contract.attached:
                goes_on = self._attach(contract, claim)
            elif contract.name == RUN.name:
                goes_on = self._command(claim)
            else:
                self._perform_here(contract, claim)
        except sqlite3.Error as exc:  # what becomes of the run cannot be written down; the next session decides
            self._on_unusable(exc)
            raise
        finally:
            if not goes_on:
                self._running.leave(run_id)

    def _require_grant(self, contract: AnyContract, claim: Claim) -> None:
        """End a run that was let in and may not begin any more: whoever pushed or approved it was put out meanwhile, or
        the policy says otherwise by now. Raises why.

        What is governed is judged anew in any case, right before it is carried out.
        """
        if self._governor is None or contract.governed:
            return
        judge = self._governor.grant if claim.approval else self._governor.let_begin
        try:
            judge(claim, contract, contract.parse(claim.arguments))
        except (errors.NotGranted, errors.InvalidArguments) as exc:
            kind = exc.kind if isinstance(exc, errors.NotGranted) else exc.code
            self._endings.fail_for_good(claim, kind=kind, message=str(exc), duration_seconds=0.0)
            raise

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

    def _command(self, claim: Claim) -> bool:
        """Carry out a command, beside the pool where there is a place; return whether it goes on there."""
        if self._commands is None:
            message = "no command is run on this host"
            record = outcomes.unheard(claim, "failed", detail=message)
            self._endings.fail_for_good(
                claim, kind="switched_off", message=message, duration_seconds=0.0, session=record
            )
            raise errors.NotGranted(message, kind="switched_off")
        perform = partial(self._commands.perform, claim, self._run(claim))
        if self._beside.start(claim.run_id, partial(self._beside_pool, claim, perform)):
            return True
        perform()
        return False

    def _perform_beside(self, contract: AnyContract, claim: Claim) -> None:
        self._beside_pool(claim, partial(self._perform_here, contract, claim))

    def _beside_pool(self, claim: Claim, perform: Callable[[], None]) -> None:
        try:
            perform()
        except errors.FleetError as exc:
            log.info("run.failed", **claim.about, error=self._masked(str(exc)))
        except sqlite3.Error as exc:
            self._on_unusable(exc)
        finally:
            self._running.leave(claim.run_id)

    def _masked(self, text: str) -> str:
        """Return a text without known secrets, as it goes on record; the worker's log is read by others, too."""
        return self._governor.mask(text) if self._governor else text

    def _perform_here(self, contract: AnyContract, claim: Claim) -> None:
        started = time.monotonic()
        limit = _limits(contract, claim).hard_seconds
        run = self._run(claim)

        def took() -> float:
            return round(time.monotonic() - started, 6)

        def record(
            outcome: outcomes.Outcome, detail: str = "", reply: Mapping[str, Any] = _NOTHING
        ) -> SessionEnded | None:
            if not contract.governed:
                return None
            return outcomes.operation(claim, outcome, detail=detail, reply=reply, duration_seconds=took())

        def fail(kind: str, message: str) -> None:
            text = canonical.text(self._masked(message))[:MAX_ERROR_CHARACTERS]
            outcome: outcomes.Outcome = "time_limit" if kind == "time_limit" else "failed"
            self._endings.fail(claim, kind=kind, message=text, duration_seconds=took(), session=record(outcome, text))

        def end(request: EndRequest) -> None:
            # An ordinary call of the Engine cannot be called back; the run ends for whoever waits.
            if request.why is Why.CANCELLED and request.cancel:
                run.end()
                self._endings.cancel(claim, request.cancel, session=record("cancelled"))
            elif contract.attached:
                run.end()
                self._settling.after_stop(claim, took())

        def be_late() -> None:
            run.end()
            at_it = "" if contract.attached else _DISK_MAYBE_AT_IT if contract.governed else _MAYBE_AT_IT
            fail("time_limit", f"not done after {limit:g} s{at_it}")

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
            log.masked_exception("run.broken", self._masked, **claim.about)
            if not run.ended():
                fail("internal_error", f"{type(exc).__name__}: {exc}")
            raise errors.TaskFailed(f"{type(exc).__name__}: {exc}", kind="internal_error") from exc
        finally:
            self._deadlines.clear(deadline)
        if not run.ended():  # else whoever ended it writes down how, there as here
            self._endings.succeed(claim, reply=reply, duration_seconds=took(), session=record("done", reply=reply))

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
