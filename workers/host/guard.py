"""The guard: what stands between the host's queue and its journal.

Each message passes the steps in order; the first that objects refuses it, with a reason that is reported, and a copy
among the dead letters. A refusal never crashes the worker and never stops the queue. Only then is the run written into
the journal and the message let go of. What the policy wants somebody else's word for is written down as well, and waits
there (`workers.host.parking`).

Until a principal's signature is seen over the whole message, and this host's key in it, the message is nobody's: its
refusal says nothing about the run that it names. After that it is that run's, and its refusal ends the run.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fleet import canonical, errors, logs
from fleet.broker.channel import MAX_MESSAGE_BYTES
from fleet.clock import BrokerClock
from fleet.contracts import Restart, registry
from fleet.contracts.verdicts import Decision, Told
from workers.host.admission import Admission, Admissions
from workers.host.checks import JSON, Candidate, Checks, Expired, Refusal
from workers.host.claim import Claim
from workers.host.governing import Governor
from workers.host.refusals import Refusals, bounded
from workers.host.unbegun import Unbegun

log = logs.get(__name__)


@dataclass(frozen=True)
class Admitted:
    """A message that is in the journal, and is to begin now."""

    run_id: str
    #: where the run was claimed at once; None where that is still to be done
    claim: Claim | None


#: What SQLite raises for values: there is something wrong with the message, and the next one may well be written down.
_NO_FAULT_OF_THE_JOURNAL = (sqlite3.IntegrityError, sqlite3.DataError)


class JournalUnusable(Exception):
    """The journal cannot be written, so nothing may run; the message stays in the inbox."""


class Parks(Protocol):
    """Has runs wait for approval (`workers.host.parking`)."""

    def room(self, principal: str) -> str:
        """Return why nothing more of a principal's is parked; empty where there is room."""

    def park(self, run_id: str, principal: str, until: float) -> None:
        """Take note of a run that waits, until that moment (unix seconds) at most."""


class Guard:
    """Admits messages into the journal, or refuses them."""

    def __init__(
        self,
        *,
        checks: Checks,
        admissions: Admissions,
        unbegun: Unbegun,
        refusals: Refusals,
        governor: Governor,
        parking: Parks,
        clock: BrokerClock,
        in_hand: Callable[[bytes], bool],
    ) -> None:
        """`in_hand` says whether a message is yet to be removed from the inbox, and may come from there once more."""
        self._checks = checks
        self._admissions = admissions
        self._unbegun = unbegun
        self._refusals = refusals
        self._clock = clock
        self._governor = governor
        self._parking = parking
        self._in_hand = in_hand

    def admit(self, item: bytes, headers: Any, body: Any, *, form: tuple[Any, Any] = JSON) -> Admitted | None:
        """Pass a message through all steps and journal it; return None where it is not to begin now.

        `form` is the content type and encoding that the message names. Raises `JournalUnusable` where this could not
        be written down.
        """
        candidate = Candidate(item, headers if isinstance(headers, dict) else {}, body, form)
        try:
            return self._judge(candidate)
        except sqlite3.Error as exc:
            raise JournalUnusable(str(exc)) from exc

    def _judge(self, candidate: Candidate) -> Admitted | None:
        try:
            self._checks.pass_through(candidate)
            assert candidate.envelope is not None
            approve_before = self._approve_before(candidate)
            accepted = self._admissions.accept(
                candidate.run_id,
                task=candidate.task,
                envelope=candidate.envelope,
                item=candidate.item.decode(),
                begin=registry.get(candidate.task).restart is Restart.RERUN,
                verdict=candidate.verdict,
                approve_before=approve_before,
            )
        except Refusal as refusal:
            self._refuse(candidate, refusal)
            return None
        except Expired as expired:
            assert candidate.envelope is not None
            self._unbegun.expire(
                candidate.run_id,
                expired_at=expired.at,
                submitted_at=candidate.envelope.submitted_at,
                verdict=self._recorded(candidate, "expired", "it came after the last moment for its beginning"),
            )
            return None
        except sqlite3.Error as exc:
            if not isinstance(exc, _NO_FAULT_OF_THE_JOURNAL):
                raise
            self._refuse(candidate, Refusal("malformed", f"it cannot be written down ({exc})"))
            return None
        except Exception as exc:  # foreign text finds its ways; what crashed here would crash every session anew
            log.exception("message.undigested", run=candidate.run_id or None)
            self._refuse(candidate, Refusal("malformed", f"it cannot be written down ({type(exc).__name__}: {exc})"))
            return None
        if accepted.admission is Admission.PARKED and approve_before is not None:
            assert candidate.principal is not None
            self._parking.park(candidate.run_id, candidate.principal.name, approve_before)
        if accepted.admission is Admission.FORGOTTEN:
            self._refuse(candidate, Refusal("stale", "it was pushed before a run that this host no longer remembers"))
        if accepted.admission is Admission.KNOWN and accepted.repeated and not self._in_hand(candidate.item):
            # The first was let go of long ago: somebody put it there again, who need not have been the control plane.
            self._refusals.report(
                candidate.item, "repeated", "the run is in the journal, and runs once", claimed=candidate.run_id
            )
        if accepted.admission in {Admission.DUE, Admission.BEGUN}:
            return Admitted(candidate.run_id, accepted.claim)
        return None

    def malformed(self, item: bytes, detail: str) -> None:
        """Take note of a queue item that is no message at all; raises `JournalUnusable`."""
        reason = "too_large" if len(item) > MAX_MESSAGE_BYTES else "malformed"
        try:
            self._refusals.report(item, reason, detail)
        except sqlite3.Error as exc:
            raise JournalUnusable(str(exc)) from exc

    def _approve_before(self, candidate: Candidate) -> float | None:
        """Return until when somebody may approve a run; None for one that needs nobody's word."""
        if candidate.verdict is None or candidate.verdict.decision is not Decision.ASK:
            return None
        assert candidate.envelope is not None
        if full := self._parking.room(candidate.envelope.submitted_by):
            raise Refusal("too_many_waiting", full)
        not_before = candidate.envelope.not_before or 0.0
        until = max(self._clock.now(), not_before) + self._governor.approve_within_seconds
        return min(until, candidate.envelope.not_after or until)

    def _recorded(self, candidate: Candidate, reason: str, detail: str) -> Told | None:
        """Return as a verdict that what somebody has signed for is refused before the policy is asked: of a governed
        contract that is on record, too. None for all others."""
        contract = registry.known().get(str(candidate.headers.get("task")))
        if contract is None or not contract.governed or candidate.principal is None:
            return None
        request = candidate.request
        try:
            if request is None:
                _args, arguments, _embed = canonical.read(candidate.body)
                request = contract.parse(arguments)
        except (errors.InvalidArguments, ValueError, TypeError, RecursionError):
            request = None  # what it wanted cannot be said; that it came, can
        return self._governor.refused(candidate.principal, contract, request, reason=reason, detail=detail)

    def _refuse(self, candidate: Candidate, refusal: Refusal) -> None:
        if not candidate.vouched:
            self._refusals.report(candidate.item, refusal.reason, refusal.detail, claimed=candidate.run_id)
            return
        detail = bounded(self._governor.mask(refusal.detail))
        by = candidate.principal.name if candidate.principal else None
        log.warning("message.refused", run=candidate.run_id, principal=by, reason=refusal.reason, detail=detail)
        verdict = candidate.verdict or self._recorded(candidate, refusal.reason, detail)
        self._unbegun.refuse(candidate.run_id, reason=refusal.reason, detail=detail, verdict=verdict)
        self._refusals.bury(candidate.item, refusal.reason, detail)
