"""Settling: what is written down about an attempt whose task ran in a process of its own, or was left by a crash.

What the supervisor saw counts. Where there is no supervisor's word, the contract says what a restart does with a run
that had begun (`Contract.restart`). No other attempt follows where somebody asked for the run's end.
"""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from fleet import clock, errors, logs
from fleet.contracts import Reply, Restart, registry, shell
from fleet.contracts.control import CancelRun
from fleet.contracts.verdicts import SessionEnded
from workers.host import outcomes
from workers.host.claim import Claim
from workers.host.endings import Endings, Interruption
from workers.host.replies import checked_reply
from workers.host.running import EndRequest
from workers.host.spool import Ending

log = logs.get(__name__)

#: Between two looks at an Engine that does not answer, and how long it has to come back.
_LOOK_AGAIN = timedelta(seconds=1)
_ENGINE_BACK_WITHIN = timedelta(minutes=2)
#: How a command ended that was not let go on: outcome of its session, kind of the failure, and why.
_CUT_SHORT: Mapping[str, tuple[outcomes.Outcome, str, str]] = {
    "time_limit": ("time_limit", "time_limit", "by its time limit"),
    "cancelled": ("cancelled", "cancelled", "because somebody asked for it"),
    "stopped": ("failed", "interrupted", "because the worker was stopped"),
    "died": ("failed", "died", "and its supervisor does not say how"),
}
#: Processes that are named in one message.
_MOST_NAMED = 20


class Reconcile(Protocol):
    """Compares a run with what the Engine shows; returns its reply if it had its effect, None if it had not."""

    def __call__(self, request: Any, *, claim: Claim, since: datetime) -> Reply | None: ...


class Settling:
    """Settles attempts of one worker session."""

    def __init__(
        self,
        endings: Endings,
        reconcilers: Mapping[str, Reconcile],
        *,
        broker_clock: clock.BrokerClock,
        stopping: threading.Event,
        on_abandoned: Callable[[str], None],
        kept: Callable[[str, int], bytes],
        mask: Callable[[str], str],
        cancelled: Callable[[str], CancelRun | None] = lambda _run: None,
    ) -> None:
        """`on_abandoned` gets the ids of runs that could not be compared with the Engine and are over all the same.

        `kept` returns what is kept of a command's output, by run and attempt; `mask` hides known secrets; `cancelled`
        returns who asked for the end of a run, if somebody has.
        """
        self._endings = endings
        self._reconcilers = reconcilers
        self._clock = broker_clock
        self._stopping = stopping
        self._on_abandoned = on_abandoned
        self._kept = kept
        self._mask = mask
        self.cancelled = cancelled
        #: one at a time: the outputs of sixty-four commands at once would fill the memory
        self._settling_command = threading.Lock()

    def by_ending(self, claim: Claim, ending: Ending, request: EndRequest | None) -> None:
        """Write down what the supervisor saw. `request` is what somebody asked of this run meanwhile.

        A run that was to end, and of which something goes on that this worker may not end, is `unknown`: neither is it
        over, nor may another attempt begin beside it.
        """
        if ending.left_running:
            log.warning(
                "run.out_of_reach",
                **claim.about,
                pids=list(ending.left_running),
                next="they go on as another user; end them as root, or take what becomes another user off the policy",
            )
        if claim.task == shell.RUN.name:
            with self._settling_command:
                self._command(claim, ending, request)
            return
        took, cancel = ending.duration_seconds, self._cancel(claim, request)
        fail = self._fails(cancel)
        match ending.kind:
            case "replied":
                self._endings.succeed(claim, reply=ending.reply or {}, duration_seconds=took)
            case "failed" if ending.left_running:
                kind, message = ending.error or ("failed", "it failed without a word")
                message = f"{message}; {_left(ending)}"
                self._endings.fail_for_good(claim, kind=kind, message=message, duration_seconds=took)
            case _ if ending.left_running:
                self._endings.lose_track(claim, message=_not_ended(ending))
            case "cancelled" | "stopped" if cancel:
                self._endings.cancel(claim, cancel)
            case "failed":
                kind, message = ending.error or ("failed", "it failed without a word")
                fail(claim, kind=kind, message=message, duration_seconds=took)
            case "time_limit":
                message = f"ended after {took:.1f} s, by its time limit"
                fail(claim, kind="time_limit", message=message, duration_seconds=took)
            case "stopped":
                self.after_stop(claim, took)
            case _:
                how = f"by signal {ending.signal}" if ending.signal else f"with status {ending.exit_status}"
                said = f": {ending.output[-1000:]}" if ending.output else ""
                fail(claim, kind="died", message=f"its process ended {how}{said}", duration_seconds=took)

    def by_contract(self, claim: Claim) -> None:
        """Do what the contract says about a run that began and left no word.

        One that somebody has cancelled is over where that can be known: nothing of it goes on, and it is not begun
        again.
        """
        match self.restart(claim):
            case Restart.RERUN | Restart.HAND_BACK | Restart.FAIL if cancel := self.cancelled(claim.run_id):
                self._end_cancelled(claim, cancel)
            case Restart.RERUN:
                self._endings.run_again(claim, Interruption.CRASHED)
            case Restart.HAND_BACK:
                self._endings.hand_back(claim, Interruption.CRASHED)
            case Restart.RECONCILE:
                self._reconcile(claim)
            case Restart.FAIL:
                message = "the worker ended while it ran; ask again"
                self._endings.fail(claim, kind="interrupted", message=message, duration_seconds=0.0)
            case Restart.UNKNOWN:
                message = "the worker ended while it ran; whether it had its effect is not known"
                self._endings.lose_track(claim, message=message, session=self._session(claim, message))
                log.warning("run.unknown", **claim.about, next="look before you run it again")

    @staticmethod
    def restart(claim: Claim) -> Restart:
        """Return what its contract says about a run that had begun when the worker ended."""
        try:
            return registry.get(claim.task).restart
        except errors.UnknownTask:  # the package that offered it is gone
            return Restart.UNKNOWN

    @staticmethod
    def needs_supervisor(claim: Claim) -> bool:
        """Say whether its contract is carried out below a supervisor, so that without one it has not begun."""
        contract = registry.known().get(claim.task)
        return contract is not None and (bool(contract.perform) or contract.name == shell.RUN.name)

    def after_stop(self, claim: Claim, took: float) -> None:
        """Write down that the worker, which stops, has ended an attempt after so many seconds."""
        match self.restart(claim):
            case Restart.RERUN | Restart.RECONCILE:
                self._endings.run_again(claim, Interruption.STOPPED)
            case Restart.HAND_BACK:
                self._endings.hand_back(claim, Interruption.STOPPED)
            case Restart.UNKNOWN | Restart.FAIL:
                message = f"ended after {took:.1f} s, because the worker was stopped"
                self._endings.fail(claim, kind="interrupted", message=message, duration_seconds=took)

    def _cancel(self, claim: Claim, request: EndRequest | None) -> CancelRun | None:
        return (request.cancel if request else None) or self.cancelled(claim.run_id)

    def _fails(self, cancel: CancelRun | None) -> Callable[..., None]:
        """Return what ends an attempt with an error: for good, where nobody wants another."""
        return self._endings.fail_for_good if cancel else self._endings.fail

    def _end_cancelled(self, claim: Claim, cancel: CancelRun) -> None:
        contract = registry.known().get(claim.task)
        detail = f"cancelled by {cancel.by}"
        record = outcomes.unheard(claim, "cancelled", detail=detail) if contract and contract.governed else None
        self._endings.cancel(claim, cancel, session=record)

    def _command(self, claim: Claim, ending: Ending, request: EndRequest | None) -> None:
        """Write down how a command ended, and the record of its session with it."""
        took, cancel = ending.duration_seconds, self._cancel(claim, request)
        if ending.kind == "failed":  # nothing has run
            kind, message = ending.error or ("failed", "it failed without a word")
            message = self._mask(message)
            record = outcomes.unheard(claim, "failed", detail=message, duration_seconds=took)
            self._endings.fail_for_good(claim, kind=kind, message=message, duration_seconds=took, session=record)
            return
        said = outcomes.result(ending, self._kept(claim.run_id, claim.attempt))
        if ending.kind == "exited":
            reply = checked_reply(shell.RUN, said)
            record = outcomes.session(claim, "exited", said, detail=_left(ending))
            self._endings.succeed(claim, reply=reply, duration_seconds=took, session=record)
        elif ending.left_running:
            message = _not_ended(ending)
            record = outcomes.session(claim, "unknown", said, detail=message)
            self._endings.lose_track(claim, message=message, session=record)
        elif ending.kind in {"cancelled", "stopped"} and cancel:
            record = outcomes.session(claim, "cancelled", said, detail=f"cancelled by {cancel.by}")
            self._endings.cancel(claim, cancel, session=record)
        else:
            outcome, kind, why = _CUT_SHORT.get(ending.kind, _CUT_SHORT["died"])
            message = f"ended after {took:.1f} s, {why}"
            record = outcomes.session(claim, outcome, said, detail=message)
            self._fails(cancel)(claim, kind=kind, message=message, duration_seconds=took, session=record)

    @staticmethod
    def _session(claim: Claim, detail: str) -> SessionEnded | None:
        """Return the record of an attempt of which nothing is known, where its contract has one."""
        contract = registry.known().get(claim.task)
        return outcomes.unheard(claim, "unknown", detail=detail) if contract and contract.governed else None

    def _reconcile(self, claim: Claim) -> None:
        reconcile = self._reconcilers[claim.task]
        request = registry.get(claim.task).parse(claim.arguments)
        # The Engine's moments are by this machine's clock.
        since = clock.from_unix(claim.started_at + self._clock.skew())
        waited = timedelta()
        while True:
            try:
                reply = reconcile(request, claim=claim, since=since)
            except errors.EngineUnavailable as exc:
                waited += _LOOK_AGAIN
                if waited > _ENGINE_BACK_WITHIN:
                    self._endings.lose_track(claim, message=f"the worker ended while it ran, and {exc}")
                    self._on_abandoned(claim.run_id)
                    return
                if self._stopping.wait(_LOOK_AGAIN.total_seconds()):
                    return  # the next session looks again
            except errors.FleetError as exc:
                kind = exc.kind if isinstance(exc, errors.TaskFailed) else exc.code
                fail = self._fails(self.cancelled(claim.run_id))
                fail(claim, kind=kind, message=str(exc), duration_seconds=0.0)
                self._on_abandoned(claim.run_id)
                return
            else:
                break
        if reply is not None:
            self._endings.succeed(claim, reply=reply.model_dump(mode="json"), duration_seconds=0.0)
        elif cancel := self.cancelled(claim.run_id):
            self._end_cancelled(claim, cancel)
            self._on_abandoned(claim.run_id)  # the next attempt would have taken up what is half made
        else:
            self._endings.run_again(claim, Interruption.CRASHED)


def _not_ended(ending: Ending) -> str:
    """Return what to say of an attempt that was to end, and has not ended altogether."""
    _outcome, _kind, why = _CUT_SHORT.get(ending.kind, _CUT_SHORT["died"])
    return f"it was to end after {ending.duration_seconds:.1f} s, {why}, and has not: {_left(ending)}"


def _left(ending: Ending) -> str:
    """Return what to say of the processes that go on; nothing where none do."""
    if not (pids := ending.left_running):
        return ""
    named = ", ".join(map(str, pids[:_MOST_NAMED])) + (", …" if len(pids) > _MOST_NAMED else "")
    return f"what goes on without a limit is another user's, which this worker may not end (process {named})"
