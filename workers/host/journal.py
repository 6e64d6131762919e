"""The journal: what this host accepted, started and finished; the memory by which nothing runs twice.

A run is `accepted` before its message leaves the broker, claimed (`accepted → started`) exactly once before any effect,
and `finished` together with the report and the result of it.
"""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fleet.broker import results
from fleet.clock import BrokerClock
from fleet.contracts.envelope import Envelope
from fleet.contracts.reports import Kind
from workers.host.outbox import Outbox
from workers.host.store import Store


@dataclass(frozen=True)
class Claim:
    """The right to carry out one attempt at a run."""

    run_id: str
    attempt: int
    task: str
    envelope: Envelope


class Journal:
    """The journal of one worker session. Thread-safe."""

    def __init__(self, store: Store, outbox: Outbox, *, clock: BrokerClock) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock

    def accept(self, run_id: str, *, task: str, envelope: Envelope, item: str) -> bool:
        """Write a run down, durably; return False where it is known already, and nothing changes then."""
        with self._store.transaction() as transaction:
            if self._known(transaction, run_id):
                return False
            transaction.execute(
                "INSERT INTO journal (run_id, attempt, state, task, envelope, item, not_after, accepted_at) "
                "VALUES (?, 1, 'accepted', ?, ?, ?, ?, ?)",
                (run_id, task, envelope.model_dump_json(), item, envelope.not_after, self._clock.now()),
            )
            self._outbox.add(transaction, Kind.RUN_ACCEPTED, run_id=run_id, attempt=1)
        self._outbox.news.set()
        return True

    def refuse(self, run_id: str, *, reason: str, detail: str) -> None:
        """Report that a message was refused and never ran, unless the run is known: then it answers for itself."""
        with self._store.transaction() as transaction:
            if self._known(transaction, run_id):
                return
            self._outbox.add(
                transaction,
                Kind.RUN_REJECTED,
                run_id=run_id,
                data={"reason": reason, "detail": detail},
                result=results.failure_meta(
                    run_id, state="rejected", kind=reason, message=detail, date_done=self._date_done()
                ),
            )
        self._outbox.news.set()

    def expire(self, run_id: str, *, expired_at: float) -> None:
        """Report that a run's time was over before it began; an accepted one is finished by it."""
        with self._store.transaction() as transaction:
            changed = transaction.execute(
                "UPDATE journal SET state = 'finished', finished_at = ?, outcome = ? "
                "WHERE run_id = ? AND state = 'accepted'",
                (self._clock.now(), Kind.RUN_EXPIRED, run_id),
            ).rowcount
            if not changed and self._known(transaction, run_id):
                return
            self._outbox.add(
                transaction,
                Kind.RUN_EXPIRED,
                run_id=run_id,
                data={"expired_at": expired_at},
                result=results.failure_meta(
                    run_id,
                    state="expired",
                    kind="expired",
                    message=f"{run_id} not begun by {datetime.fromtimestamp(expired_at, UTC):%Y-%m-%d %H:%M:%S} UTC",
                    date_done=self._date_done(),
                ),
            )
        self._outbox.news.set()

    def claim(self, run_id: str) -> Claim | None:
        """Claim an accepted run, durably; None where there is nothing to claim. One caller gets it, ever.

        A run whose time is over is finished as expired instead.
        """
        now = self._clock.now()
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "UPDATE journal SET state = 'started', started_at = ? WHERE run_id = ? AND state = 'accepted' "
                "AND (not_after IS NULL OR not_after >= ?) RETURNING attempt, task, envelope",
                (now, run_id, now),
            ).fetchone()
            if row is not None:
                attempt, task, envelope = row
                self._outbox.add(transaction, Kind.RUN_STARTED, run_id=run_id, attempt=attempt)
            late = transaction.execute(
                "SELECT not_after FROM journal WHERE run_id = ? AND state = 'accepted'", (run_id,)
            ).fetchone()
        if late is not None:
            self.expire(run_id, expired_at=late[0])
        if row is None:
            return None
        self._outbox.news.set()
        return Claim(run_id, attempt, task, Envelope.model_validate_json(envelope))

    def progress(self, claim: Claim, *, step: str, percent: float | None) -> None:
        """Report how far a run is."""
        with self._store.transaction(durable=False) as transaction:
            self._outbox.add(
                transaction,
                Kind.RUN_PROGRESSED,
                run_id=claim.run_id,
                attempt=claim.attempt,
                data={"step": step, "percent": percent},
            )
        self._outbox.news.set()

    def succeed(self, claim: Claim, *, reply: dict[str, Any], duration_seconds: float) -> None:
        """Finish a run with its reply."""
        self._finish(
            claim,
            Kind.RUN_SUCCEEDED,
            {"reply": reply, "duration_seconds": duration_seconds},
            results.success_meta(claim.run_id, reply, date_done=self._date_done()),
        )

    def fail(self, claim: Claim, *, kind: str, message: str, duration_seconds: float) -> None:
        """Finish a run with an error."""
        self._finish(
            claim,
            Kind.RUN_FAILED,
            {"kind": kind, "message": message, "duration_seconds": duration_seconds},
            results.failure_meta(claim.run_id, state="failed", kind=kind, message=message, date_done=self._date_done()),
        )

    def waiting(self) -> list[tuple[str, str]]:
        """Return runs that were accepted and have not begun, with their queue items, the newest first."""
        with self._store.transaction(durable=False) as transaction:
            return transaction.execute(
                "SELECT run_id, item FROM journal WHERE state = 'accepted' ORDER BY accepted_at DESC, rowid DESC"
            ).fetchall()

    def hand_back(self, run_id: str) -> None:
        """Forget a run that has not begun, because its message is in the queue again."""
        with self._store.transaction() as transaction:
            transaction.execute("DELETE FROM journal WHERE run_id = ? AND state = 'accepted'", (run_id,))

    def interrupted(self) -> list[Claim]:
        """Return runs that have begun and not finished, the oldest first."""
        with self._store.transaction(durable=False) as transaction:
            rows = transaction.execute(
                "SELECT run_id, attempt, task, envelope FROM journal WHERE state = 'started' ORDER BY started_at"
            ).fetchall()
        return [Claim(run_id, attempt, task, Envelope.model_validate_json(e)) for run_id, attempt, task, e in rows]

    def _finish(self, claim: Claim, kind: Kind, data: dict[str, Any], result: dict[str, Any]) -> None:
        with self._store.transaction() as transaction:
            finished = transaction.execute(
                "UPDATE journal SET state = 'finished', finished_at = ?, outcome = ? "
                "WHERE run_id = ? AND attempt = ? AND state = 'started'",
                (self._clock.now(), kind, claim.run_id, claim.attempt),
            ).rowcount
            if finished:
                self._outbox.add(
                    transaction, kind, run_id=claim.run_id, attempt=claim.attempt, data=data, result=result
                )
        self._outbox.news.set()

    @staticmethod
    def _known(transaction: sqlite3.Connection, run_id: str) -> bool:
        return transaction.execute("SELECT 1 FROM journal WHERE run_id = ? LIMIT 1", (run_id,)).fetchone() is not None

    def _date_done(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).isoformat()
