"""Parked runs: what the journal knows of runs that wait for somebody's approval.

A run waits in the journal, not in the broker and not on the control plane: nobody but this host can let it begin. It
leaves this state once, by one UPDATE, whoever comes first: an approval, a denial, a cancel, or its time.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fleet.broker import results
from fleet.clock import BrokerClock
from fleet.contracts.control import ApproveRun, DenyRun
from fleet.contracts.envelope import Envelope
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import Told
from workers.host.attempts import finish
from workers.host.claim import read_envelope
from workers.host.outbox import Outbox
from workers.host.store import Store


@dataclass(frozen=True)
class Awaiting:
    """A run that waits for approval."""

    run_id: str
    task: str
    envelope: Envelope
    #: the queue item
    item: str
    verdict: Told
    #: unix seconds by the broker's clock
    approve_before: float


class Parked:
    """The parked runs of one worker session. Thread-safe."""

    def __init__(self, store: Store, outbox: Outbox, *, clock: BrokerClock) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock

    def count(self, principal: str) -> tuple[int, int]:
        """Return how many runs of a principal wait for approval, and of everybody."""
        with self._store.transaction() as transaction:
            own, everybody = transaction.execute(
                "SELECT coalesce(sum(json_extract(envelope, '$.submitted_by') = ?), 0), count(*) FROM journal "
                "WHERE state = 'awaiting'",
                (principal,),
            ).fetchone()
        return int(own), int(everybody)

    def awaiting(self, run_id: str) -> list[Awaiting]:
        """Return this run if it waits for approval."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT run_id, task, envelope, item, verdict, approve_before FROM journal WHERE state = 'awaiting' "
                "AND run_id = ?",
                (run_id,),
            ).fetchall()
        return [
            Awaiting(
                run_id,
                task,
                read_envelope(envelope),
                item,
                Told.model_validate_json(verdict),
                approve_before,
            )
            for run_id, task, envelope, item, verdict, approve_before in rows
        ]

    def deadlines(self) -> list[tuple[str, str, float]]:
        """Return all runs that wait for approval, who wants them, and until when; not their messages, which may be more
        than memory holds."""
        with self._store.transaction() as transaction:
            return transaction.execute(
                "SELECT run_id, json_extract(envelope, '$.submitted_by'), approve_before FROM journal"
                " WHERE state = 'awaiting' ORDER BY accepted_at"
            ).fetchall()

    def approve(self, word: ApproveRun, signed: str, *, run_before: float) -> bool:
        """Let a run begin that waits for it, once, by `run_before`; return whether it waited. Durable at once.

        `signed` is the word as the approver signed it; it goes on record, for whoever wants to check it.
        """
        now = self._clock.now()
        data = {"by": word.by, "reason": word.reason, "digest": word.digest, "run_before": run_before}
        data["signed"] = signed
        with self._store.transaction(durable=True) as transaction:
            former = transaction.execute(
                "SELECT approval FROM journal WHERE run_id = ? AND approval IS NOT NULL", (word.run,)
            ).fetchall()
            if _said(signed) in {_said(each) for (each,) in former}:
                return False  # of an attempt that was given back since: somebody has kept the word, and brings it again
            row = transaction.execute(
                "UPDATE journal SET state = 'accepted', approval = ?, not_after = min(coalesce(not_after, ?), ?) "
                "WHERE run_id = ? AND state = 'awaiting' AND approve_before >= ? RETURNING attempt",
                (signed, run_before, run_before, word.run, now),
            ).fetchone()
            if row is not None:
                self._outbox.add(transaction, Kind.RUN_APPROVED, run_id=word.run, attempt=row[0], data=data)
                self._store.after_commit(self._outbox.tell_urgently)
        return row is not None

    def deny(self, word: DenyRun) -> bool:
        """End a run that waits for approval, because somebody denies it; return whether it waited."""
        detail = f"denied by {word.by}" + (f": {word.reason}" if word.reason else "")
        return self.reject_parked(word.run, reason="denied", detail=detail, by=word.by)

    def reject_parked(self, run_id: str, *, reason: str, detail: str, by: str | None = None) -> bool:
        """End a run that waits for approval, as refused; return whether it waited."""
        data = {"reason": reason, "detail": detail, **({"by": by} if by else {})}
        meta = results.failure_meta(run_id, state="rejected", kind=reason, message=detail, date_done=self._clock.iso())
        return self._end(run_id, Kind.RUN_REJECTED, data, meta)

    def expire_parked(self, run_id: str) -> bool:
        """End a run that nobody approved in time; return whether it waited."""
        return self._expire(run_id, "was not approved", {"waited_for": "approval"}, state="awaiting")

    def expire_unbegun(self, run_id: str) -> bool:
        """End a run that was approved and did not begin in time; return whether it had not."""
        return self._expire(run_id, "was approved, and did not begin", {}, state="accepted")

    def _expire(self, run_id: str, problem: str, data: dict[str, Any], *, state: str) -> bool:
        now = self._clock.now()
        message = f"{run_id} {problem} by {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
        meta = results.failure_meta(
            run_id, state="expired", kind="expired", message=message, date_done=self._clock.iso()
        )
        return self._end(run_id, Kind.RUN_EXPIRED, {"expired_at": now} | data, meta, state=state)

    def _end(
        self, run_id: str, kind: Kind, data: dict[str, Any], meta: dict[str, Any], *, state: str = "awaiting"
    ) -> bool:
        with self._store.transaction(durable=True) as transaction:
            # The attempt that was parked, not one that follows it; of a run that was given back, that is not the first.
            row = transaction.execute(
                "SELECT attempt FROM journal WHERE run_id = ? AND state = ? AND approve_before IS NOT NULL",
                (run_id, state),
            ).fetchone()
            attempt = row and finish(transaction, run_id, kind, data, state=state, at=self._clock.now(), attempt=row[0])
            if attempt is not None:
                self._outbox.add(transaction, kind, run_id=run_id, attempt=attempt, data=data, result=meta)
        return attempt is not None


def _said(signed: str) -> str:
    """Return what was signed in a word; what is around it anybody can write in another way."""
    return str(json.loads(signed).get("message", signed))
