"""Parking: runs that wait for somebody else's approval, and what that somebody says.

An approval is a word of the approver's own, signed by its key, about one request by its digest. This host checks it;
the control plane and the broker only carry it. It counts once: the run leaves its place by it, and begins by
`run_before` or never.
"""

from collections.abc import Callable

from fleet import errors, logs
from fleet.clock import BrokerClock
from fleet.contracts import Risk, approvals, registry
from fleet.contracts.control import ApproveRun, DenyRun
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import Decision
from fleet.security.identity import PrincipalIdentity
from workers.host.allowance import Allowance
from workers.host.deadlines import Deadlines
from workers.host.governing import Governor
from workers.host.outbox import Outbox
from workers.host.parked import Awaiting, Parked

log = logs.get(__name__)


#: Runs that wait here at once, of one principal and of all: whoever may only ask could fill the disk otherwise.
MOST_OF_ONE, MOST = 100, 1_000
#: Answers that do not count are reported one by one: so many at once, and so many a second for long.
_REFUSED_AT_ONCE, _REFUSED_A_SECOND = 100.0, 1.0


class Refused(Exception):
    """Somebody's word about a run does not count. `reason` is a catalogued word, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Parking:
    """Looks after the parked runs of one worker session. Thread-safe."""

    def __init__(
        self,
        parked: Parked,
        *,
        governor: Governor,
        outbox: Outbox,
        deadlines: Deadlines,
        clock: BrokerClock,
        wake: Callable[[], None],
    ) -> None:
        """`wake` has the worker look for runs that may begin."""
        self._parked = parked
        self._governor = governor
        self._outbox = outbox
        self._deadlines = deadlines
        self._clock = clock
        self._wake = wake
        self._allowance = Allowance(at_once=_REFUSED_AT_ONCE, a_second=_REFUSED_A_SECOND)

    def room(self, principal: str) -> str:
        """Return why nothing more of a principal's is parked here; empty where there is room."""
        own, everybody = self._parked.count(principal)
        if own >= MOST_OF_ONE:
            return f"{own} runs of {principal} wait for approval here already"
        return f"{everybody} runs wait for approval here already" if everybody >= MOST else ""

    def take_up(self) -> None:
        """Go on with what former sessions have parked."""
        for run_id, principal, until in self._parked.deadlines():
            self.park(run_id, principal, until)

    def park(self, run_id: str, principal: str, until: float) -> None:
        """Have a run end as expired that nobody has approved by then (unix seconds by the broker's clock)."""
        log.info("run.parked", run=run_id, principal=principal, next="it begins once somebody else approves it")
        self._deadlines.set(max(0.0, until - self._clock.now()), lambda: self._expire(run_id, principal, until))

    def decide(self, word: ApproveRun | DenyRun, approver: PrincipalIdentity, signed: str) -> None:
        """Act upon a principal's word about a run; its signature has been checked. What does not count is reported.

        `signed` is the word as it came.
        """
        run_before = 0.0
        try:
            run = self._waiting(word)
            self._require_right(word, approver, run)
            if isinstance(word, DenyRun):
                counts = self._parked.deny(word)
            else:
                run_before = self._run_before(word, run)
                counts = self._still_asked(run, approver) and self._parked.approve(word, signed, run_before=run_before)
        except errors.NotGranted as exc:  # whoever asked for it is nobody any more, by the fleet's word
            self._parked.reject_parked(word.run, reason=exc.kind, detail=exc.message)
            return
        except Refused as refused:
            log.warning("approval.refused", run=word.run, principal=approver.name, reason=refused.reason)
            if not self._allowance.take():  # whoever may answer could fill the audit otherwise
                return
            data = {"by": approver.name, "reason": refused.reason, "detail": refused.detail}
            self._outbox.ask(Kind.APPROVAL_REFUSED, word.run, data)
            return
        if counts:
            log.info("approval.counted", run=word.run, principal=approver.name, says=word.kind)
        if counts and isinstance(word, ApproveRun):
            self._deadlines.set(max(0.0, run_before - self._clock.now()), lambda: self._parked.expire_unbegun(word.run))
            self._wake()

    def _waiting(self, word: ApproveRun | DenyRun) -> Awaiting:
        found = self._parked.awaiting(word.run)
        if not found:
            raise Refused("not_waiting", "no such run waits for approval here (any more)")
        [run] = found
        if word.digest != approvals.digest(run.item):
            raise Refused("changed", "it is about another request than the one that waits")
        return run

    def _require_right(self, word: ApproveRun | DenyRun, approver: PrincipalIdentity, run: Awaiting) -> None:
        """Raise where this is not somebody else who may approve that."""
        if approver.name == run.envelope.submitted_by or approver.key == self._governor.requester(run.item).key:
            raise Refused("own_request", f"{approver.name} asked for it, and somebody else has to answer")
        _require_risk(approver, run.verdict.risk)

    def _run_before(self, word: ApproveRun, run: Awaiting) -> float:
        """Return by when the run has to begin: as the approver says, within what the policy lets them say."""
        now = self._clock.now()
        if word.run_before <= now:
            raise Refused("late", "the time by which it was to begin is over")
        begins_at = max(now, run.envelope.not_before or 0.0)
        return min(word.run_before, begins_at + self._governor.run_within_seconds)

    def _still_asked(self, run: Awaiting, approver: PrincipalIdentity) -> bool:
        """Say whether the request would be parked or begun now, too; end it where it would not.

        Raises where it has become graver than this approver may answer for.
        """
        principal = self._governor.current_requester(run.item)
        contract = registry.get(run.task)
        request = contract.parse(approvals.arguments(run.item))
        verdict = self._governor.judge(principal, contract, request, run.envelope)
        if verdict.decision is Decision.DENY:
            self._parked.reject_parked(run.run_id, reason=verdict.reason, detail=verdict.rule)
            return False
        if verdict.decision is Decision.ASK:
            _require_risk(approver, verdict.risk)
        return True

    def _expire(self, run_id: str, principal: str, until: float) -> None:
        """End a run that still waits, unless the clock was corrected meanwhile."""
        if (left := until - self._clock.now()) > 0:
            self._deadlines.set(left, lambda: self._expire(run_id, principal, until))
        elif self._parked.expire_parked(run_id):
            log.warning("run.unapproved", run=run_id, principal=principal, next="it has expired")


def _require_risk(approver: PrincipalIdentity, risk: Risk) -> None:
    if risk not in approver.approves:
        raise Refused(
            "not_permitted",
            f"principal {approver.name} may not answer for what {risk}; `fleet principal set-approves` lets it",
        )
