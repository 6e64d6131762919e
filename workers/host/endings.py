"""Endings: how an attempt at a run ends, written into the journal together with the report and the result of it.

An attempt ends once; whoever comes second (a task that goes on after its time limit, say) changes nothing. After some
endings another attempt follows: a retry that was asked for, or one that a crash made necessary.

What came of an attempt at a governed contract (`session`) is reported with its end, in the same transaction.
"""

import random
import sqlite3
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from fleet import canonical
from fleet.broker import results
from fleet.clock import BrokerClock
from fleet.contracts import Restart
from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import RunAs, SessionEnded, SessionStarted
from workers.host.attempts import CRASHED_AND_HANDED_BACK, finish
from workers.host.claim import Claim
from workers.host.outbox import Outbox
from workers.host.store import Store
from workers.host.unbegun import cancelled_meta

#: Attempts at a run that may end by a crash; then it is taken for the cause.
MOST_CRASHES = 3


class Interruption(StrEnum):
    """What ended an attempt without a word of its own, and another follows."""

    #: the worker was gone from one moment to the next
    CRASHED = "crashed"
    #: the worker was told to stop, and ended it
    STOPPED = "stopped"


class Endings:
    """Writes endings. Thread-safe."""

    def __init__(self, store: Store, outbox: Outbox, *, clock: BrokerClock) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock

    def progress(self, claim: Claim, *, step: str, percent: float | None) -> None:
        """Report how far a run is."""
        with self._store.transaction() as transaction:
            self._outbox.add(
                transaction,
                Kind.RUN_PROGRESSED,
                run_id=claim.run_id,
                attempt=claim.attempt,
                data={"step": step, "percent": percent},
            )

    def begin_session(self, claim: Claim, run_as: RunAs) -> None:
        """Report what an attempt at a command is about to run."""
        with self._store.transaction() as transaction:
            self._outbox.add(
                transaction,
                Kind.SESSION_STARTED,
                run_id=claim.run_id,
                attempt=claim.attempt,
                data=SessionStarted(run_as=run_as).model_dump(mode="json"),
            )

    def succeed(
        self, claim: Claim, *, reply: dict[str, Any], duration_seconds: float, session: SessionEnded | None = None
    ) -> None:
        """End a run with its reply."""
        self._end(
            claim,
            Kind.RUN_SUCCEEDED,
            {"reply": reply, "duration_seconds": duration_seconds},
            lambda date_done: results.success_meta(claim.run_id, reply, date_done=date_done),
            session=session,
        )

    def fail(
        self,
        claim: Claim,
        *,
        kind: str,
        message: str,
        duration_seconds: float,
        session: SessionEnded | None = None,
    ) -> None:
        """End an attempt with an error; another follows where the push asked for that and one is left."""
        message = canonical.text(message)
        if (due_at := self._next_due(claim)) is not None:
            self._follow(
                claim,
                Kind.RUN_RETRYING,
                outcome=Kind.RUN_RETRYING,
                due_at=due_at,
                data={"kind": kind, "message": message, "not_before": due_at, "duration_seconds": duration_seconds},
                session=session,
            )
            return
        self.fail_for_good(claim, kind=kind, message=message, duration_seconds=duration_seconds, session=session)

    def fail_for_good(
        self,
        claim: Claim,
        *,
        kind: str,
        message: str,
        duration_seconds: float,
        session: SessionEnded | None = None,
    ) -> None:
        """End a run with an error."""
        message = canonical.text(message)
        self._end(
            claim,
            Kind.RUN_FAILED,
            {"kind": kind, "message": message, "duration_seconds": duration_seconds},
            self._failure(claim, "failed", kind, message),
            session=session,
        )

    def cancel(self, claim: Claim, request: CancelRun, *, session: SessionEnded | None = None) -> None:
        """End a run that was begun, because somebody asked for it."""
        self._end(
            claim,
            Kind.RUN_CANCELLED,
            {"by": request.by, "reason": request.reason, "begun": True},
            lambda date_done: cancelled_meta(claim.run_id, request, date_done=date_done),
            session=session,
        )

    def lose_track(self, claim: Claim, *, message: str, session: SessionEnded | None = None) -> None:
        """End a run as `unknown`: it began, and nobody can say whether it had its effect."""
        message = canonical.text(message)
        result = self._failure(claim, "unknown", "unknown", message)
        self._end(claim, Kind.RUN_UNKNOWN, {"message": message}, result, session=session)

    def recover(self, claim: Claim, *, how: str) -> None:
        """Report that an attempt which a crash left behind is being looked into, or goes on."""
        with self._store.transaction() as transaction:
            transaction.execute(
                "UPDATE journal SET recovered = 1 WHERE run_id = ? AND attempt = ?", (claim.run_id, claim.attempt)
            )
            self._outbox.add(
                transaction, Kind.RUN_RECOVERING, run_id=claim.run_id, attempt=claim.attempt, data={"how": how}
            )

    def run_again(self, claim: Claim, why: Interruption) -> None:
        """End an attempt that was cut short, and have another follow at once; the third crash ends the run."""
        if self._ended_as_poison(claim, why):
            return
        data = {"how": Restart.RERUN.value}
        self._follow(claim, Kind.RUN_RECOVERING, outcome=why, due_at=self._clock.now(), data=data, recovered=True)

    def hand_back(self, claim: Claim, why: Interruption) -> None:
        """Give a run back to the control plane, which sends its message again: that begins the next attempt.

        The third crash ends the run.
        """
        if self._ended_as_poison(claim, why):
            return
        outcome = Kind.RUN_HANDED_BACK if why is Interruption.STOPPED else CRASHED_AND_HANDED_BACK
        with self._store.transaction() as transaction:
            if self._finish(transaction, claim, outcome) is not None:
                self._outbox.add(transaction, Kind.RUN_HANDED_BACK, run_id=claim.run_id, attempt=claim.attempt + 1)

    def _ended_as_poison(self, claim: Claim, why: Interruption) -> bool:
        """End a run that has crashed the worker too often; return whether it has."""
        if why is not Interruption.CRASHED or self._crashes(claim) + 1 < MOST_CRASHES:
            return False
        message = f"the worker ended {MOST_CRASHES} times while it ran; it is not begun again"
        self.fail_for_good(claim, kind="poison", message=message, duration_seconds=0.0)
        return True

    def _follow(
        self,
        claim: Claim,
        kind: Kind,
        *,
        outcome: str,
        due_at: float,
        data: dict[str, Any],
        recovered: bool = False,
        session: SessionEnded | None = None,
    ) -> None:
        """End this attempt and write the next one down; the report is about the next one."""
        now = self._clock.now()
        with self._store.transaction() as transaction:
            if self._finish(transaction, claim, outcome) is None:
                return
            transaction.execute(
                "INSERT INTO journal (run_id, attempt, state, task, envelope, item, handed_over, recovered, "
                "submitted_at, due_at, not_after, verdict, approval, accepted_at) "
                "SELECT run_id, attempt + 1, 'accepted', task, envelope, ?, 1, ?, submitted_at, ?, not_after, "
                "verdict, approval, ? FROM journal WHERE run_id = ? AND attempt = ?",
                (claim.item, int(recovered), due_at, now, claim.run_id, claim.attempt),
            )
            self._add_session(transaction, claim, session)
            self._outbox.add(transaction, kind, run_id=claim.run_id, attempt=claim.attempt + 1, data=data)

    def _end(
        self,
        claim: Claim,
        kind: Kind,
        data: dict[str, Any],
        result: Callable[[str], dict[str, Any]],
        *,
        session: SessionEnded | None,
    ) -> None:
        with self._store.transaction() as transaction:
            if self._finish(transaction, claim, kind, data) is None:
                return
            self._add_session(transaction, claim, session)
            self._outbox.add(
                transaction,
                kind,
                run_id=claim.run_id,
                attempt=claim.attempt,
                data=data,
                result=result(self._clock.iso()),
            )

    def _add_session(self, transaction: sqlite3.Connection, claim: Claim, session: SessionEnded | None) -> None:
        """Report what came of an attempt, before the report of its end: who sees that has seen this."""
        if session is not None:
            data = session.model_dump(mode="json")
            self._outbox.add(transaction, Kind.SESSION_ENDED, run_id=claim.run_id, attempt=claim.attempt, data=data)

    def _finish(
        self, transaction: sqlite3.Connection, claim: Claim, outcome: str, answer: dict[str, Any] | None = None
    ) -> int | None:
        return finish(
            transaction,
            claim.run_id,
            outcome,
            answer,
            state="started",
            at=self._clock.now(),
            attempt=claim.attempt,
        )

    def _next_due(self, claim: Claim) -> float | None:
        """Return when the next attempt is due; None where none is left, or the run's time is over by then."""
        retry = claim.envelope.retry
        failed = self._count(claim, Kind.RUN_RETRYING)
        if failed >= retry.max_retries:
            return None
        wait = min(retry.backoff_seconds * 2.0**failed, retry.backoff_max_seconds)
        # Jitter, so that many hosts that failed together do not come again together.
        due_at = self._clock.now() + wait * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        not_after = self._not_after(claim)
        return None if not_after is not None and due_at > not_after else due_at

    def _not_after(self, claim: Claim) -> float | None:
        """Return until when an attempt at a run may be due: as its principal said, or whoever approved it."""
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "SELECT not_after FROM journal WHERE run_id = ? AND attempt = ?", (claim.run_id, claim.attempt)
            ).fetchone()
        return row[0] if row else claim.envelope.not_after

    def _crashes(self, claim: Claim) -> int:
        return self._count(claim, Interruption.CRASHED) + self._count(claim, CRASHED_AND_HANDED_BACK)

    def _count(self, claim: Claim, outcome: str) -> int:
        with self._store.transaction() as transaction:
            (count,) = transaction.execute(
                "SELECT count(*) FROM journal WHERE run_id = ? AND outcome = ?", (claim.run_id, outcome)
            ).fetchone()
        return int(count)

    @staticmethod
    def _failure(claim: Claim, state: str, kind: str, message: str) -> Callable[[str], dict[str, Any]]:
        return lambda date_done: results.failure_meta(
            claim.run_id, state=state, kind=kind, message=message, date_done=date_done
        )
