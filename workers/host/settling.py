"""Settling: what is written down about an attempt whose task ran in a process of its own, or was left by a crash.

What the supervisor saw counts. Where there is no supervisor's word, the contract says what a restart does with a run
that had begun (`Contract.restart`).
"""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from fleet import clock, errors, logs
from fleet.contracts import Reply, Restart, registry
from workers.host.endings import Endings, Interruption
from workers.host.journal import Claim
from workers.host.running import EndRequest
from workers.host.spool import Ending

log = logs.get(__name__)

#: Between two looks at an Engine that does not answer, and how long it has to come back.
_LOOK_AGAIN = timedelta(seconds=1)
_ENGINE_BACK_WITHIN = timedelta(minutes=2)


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
    ) -> None:
        """`on_abandoned` gets the ids of runs that could not be compared with the Engine and are over all the same."""
        self._endings = endings
        self._reconcilers = reconcilers
        self._clock = broker_clock
        self._stopping = stopping
        self._on_abandoned = on_abandoned

    def by_ending(self, claim: Claim, ending: Ending, request: EndRequest | None) -> None:
        """Write down what the supervisor saw. `request` is what somebody asked of this run meanwhile."""
        took = ending.duration_seconds
        match ending.kind:
            case "replied":
                self._endings.succeed(claim, reply=ending.reply or {}, duration_seconds=took)
            case "cancelled" if request and request.cancel:
                self._endings.cancel(claim, request.cancel)
            case "failed":
                kind, message = ending.error or ("failed", "it failed without a word")
                self._endings.fail(claim, kind=kind, message=message, duration_seconds=took)
            case "time_limit":
                message = f"ended after {took:.1f} s, by its time limit"
                self._endings.fail(claim, kind="time_limit", message=message, duration_seconds=took)
            case "stopped":
                self.after_stop(claim, took)
            case _:
                how = f"by signal {ending.signal}" if ending.signal else f"with status {ending.exit_status}"
                said = f": {ending.output[-1000:]}" if ending.output else ""
                self._endings.fail(claim, kind="died", message=f"its process ended {how}{said}", duration_seconds=took)

    def by_contract(self, claim: Claim) -> None:
        """Do what the contract says about a run that began and left no word."""
        match self.restart(claim):
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
                self._endings.lose_track(
                    claim, message="the worker ended while it ran; whether it had its effect is not known"
                )
                log.warning("run.unknown", run=claim.run_id, task=claim.task, next="look before you run it again")

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
        return contract is not None and bool(contract.perform)

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
                self._endings.fail(claim, kind=kind, message=str(exc), duration_seconds=0.0)
                self._on_abandoned(claim.run_id)
                return
            else:
                break
        if reply is None:
            self._endings.run_again(claim, Interruption.CRASHED)
        else:
            self._endings.succeed(claim, reply=reply.model_dump(mode="json"), duration_seconds=0.0)
