"""Unbegun: how runs end that never began on this host: refused, expired, or cancelled.

None of this touches a run that has begun; that one's end is in `workers.host.endings`. What is refused is not
remembered; what has expired is, and so is a cancel whose run has yet to come, or is not at its end.
"""

import json
import sqlite3
from datetime import UTC, datetime
from typing import Any

from fleet.broker import results
from fleet.clock import BrokerClock
from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import Told
from workers.host import attempts
from workers.host.outbox import Outbox
from workers.host.store import Store


class Unbegun:
    """Ends runs of one worker session that have not begun. Thread-safe."""

    def __init__(self, store: Store, outbox: Outbox, *, clock: BrokerClock) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock

    def refuse(self, run_id: str, *, reason: str, detail: str, verdict: Told | None = None) -> None:
        """Report that a message was refused and never ran, unless the run is known: then it answers for itself.

        Nothing is remembered of it: the message may be somebody's forgery of one that is still to come.
        """
        with self._store.transaction() as transaction:
            if attempts.coming(transaction, run_id) is None:
                return
            meta = results.failure_meta(
                run_id, state="rejected", kind=reason, message=detail, date_done=self._clock.iso()
            )
            data: dict[str, Any] = {"reason": reason, "detail": detail}
            if verdict:
                data["verdict"] = verdict.model_dump(mode="json")
            self._outbox.add(transaction, Kind.RUN_REJECTED, run_id=run_id, data=data, result=meta)

    def expire(
        self, run_id: str, *, expired_at: float, submitted_at: float, attempt: int = 1, verdict: Told | None = None
    ) -> None:
        """Report that a run's time was over before it began, and remember it; an accepted `attempt` is finished by it.

        Nothing changes for a run that has begun, also where it waits for another attempt than that one. `verdict` goes
        on record of one that was never accepted.
        """
        now, data = self._clock.now(), {"expired_at": expired_at}
        told: dict[str, Any] = {}
        # of what was pushed, the whole run; where something of it has run, no more than what comes after that
        what = run_id if attempt == 1 else f"{run_id}: attempt {attempt}"
        message = f"{what} not begun by {datetime.fromtimestamp(expired_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
        meta = results.failure_meta(
            run_id, state="expired", kind="expired", message=message, date_done=self._clock.iso()
        )
        with self._store.transaction() as transaction:
            if (
                attempts.finish(transaction, run_id, Kind.RUN_EXPIRED, data, state="accepted", at=now, attempt=attempt)
                is None
            ):
                coming = attempts.coming(transaction, run_id)
                if coming is None:
                    return
                transaction.execute(
                    "INSERT INTO journal (run_id, attempt, state, task, envelope, handed_over, submitted_at, due_at, "
                    "accepted_at, finished_at, outcome, answer) VALUES (?, ?, 'finished', '', '', 1, ?, ?, ?, ?, ?, ?)",
                    (run_id, coming, submitted_at, now, now, now, Kind.RUN_EXPIRED, json.dumps(data)),
                )
                told = {"verdict": verdict.model_dump(mode="json")} if verdict else {}
            number = attempt if attempt > 1 else None
            self._outbox.add(
                transaction, Kind.RUN_EXPIRED, run_id=run_id, attempt=number, data=data | told, result=meta
            )

    def cancel(self, request: CancelRun) -> bool:
        """End a run that has not begun, also one whose message has yet to come; return whether it is running now.

        The request is durable when this returns. That of a run which has begun is kept, too: whoever was to end it may
        be killed before it has, and the next session would not know what its end means, or begin it again.
        """
        with self._store.transaction(durable=True) as transaction:
            row = transaction.execute(
                "SELECT state FROM journal WHERE run_id = ? ORDER BY attempt DESC LIMIT 1", (request.run,)
            ).fetchone()
            begun = row is not None and row[0] == "started"
            if begun or attempts.coming(transaction, request.run) is not None:
                transaction.execute(
                    "INSERT INTO cancelled VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (request.run, request.model_dump_json(), self._clock.now()),
                )
            elif row and row[0] in {"accepted", "awaiting"}:
                self.end_cancelled(transaction, request.run, request)
        return begun

    def requested(self, run_id: str) -> CancelRun | None:
        """Return who asked for the end of a run that had begun by then, or had yet to come."""
        with self._store.transaction() as transaction:
            return requested(transaction, run_id)

    def end_cancelled(self, transaction: sqlite3.Connection, run_id: str, request: CancelRun) -> None:
        """Finish an attempt that is accepted, or waits for approval, as cancelled, within `transaction`."""
        now = self._clock.now()
        data = {"by": request.by, "reason": request.reason, "begun": False}
        attempt = attempts.finish(transaction, run_id, Kind.RUN_CANCELLED, data, state="accepted", at=now)
        if attempt is None:
            attempt = attempts.finish(transaction, run_id, Kind.RUN_CANCELLED, data, state="awaiting", at=now)
        if attempt is not None:
            meta = cancelled_meta(run_id, request, date_done=self._clock.iso())
            self._outbox.add(transaction, Kind.RUN_CANCELLED, run_id=run_id, attempt=attempt, data=data, result=meta)


def requested(transaction: sqlite3.Connection, run_id: str) -> CancelRun | None:
    """Return the request to cancel a run that is kept for it."""
    row = transaction.execute("SELECT requested FROM cancelled WHERE run_id = ?", (run_id,)).fetchone()
    return CancelRun.model_validate_json(row[0]) if row else None


def cancelled_meta(run_id: str, request: CancelRun, *, date_done: str) -> dict[str, Any]:
    """Return the result of a cancelled run, in Celery's form."""
    message = f"cancelled by {request.by}" + (f": {request.reason}" if request.reason else "")
    return results.failure_meta(run_id, state="cancelled", kind="cancelled", message=message, date_done=date_done)
