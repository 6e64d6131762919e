"""Admission: the first thing that the journal has of a run, written before its message may leave the broker.

A run that is known is not written down again, whoever brings its message: the same message twice, or a hundred times,
has one effect. Whether it may be is for the guard to say (`workers.host.guard`).
"""

import json
import sqlite3
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fleet.clock import BrokerClock
from fleet.contracts import approvals
from fleet.contracts.envelope import Envelope
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import Told
from workers.host import attempts
from workers.host.claim import Claim
from workers.host.outbox import Outbox
from workers.host.store import Store
from workers.host.unbegun import Unbegun, requested

#: A message that comes again within this many seconds after its run was answered for is a copy, no question.
_ANSWERED_LATELY = 60.0
#: Longer than a session that was killed leaves a message in its inbox before the next one looks, in seconds.
_INBOX_SECONDS = 60.0


class Admission(Enum):
    """What became of a message that was offered to the journal."""

    #: accepted, and due at once
    DUE = "due"
    #: accepted and claimed at once
    BEGUN = "begun"
    #: accepted; it waits in the journal for its time
    WAITS = "waits"
    #: it waits in the journal for somebody's approval
    PARKED = "parked"
    #: its run is in the journal already
    KNOWN = "known"
    #: it was submitted before a run that the journal has forgotten, and may be one of those
    FORGOTTEN = "forgotten"
    #: its end was asked for before it came; it never runs
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Accepted:
    """What became of a message, with the claim where it was claimed at once."""

    admission: Admission
    claim: Claim | None = None
    #: of a run that is known: this is no message that a former session left in its inbox
    repeated: bool = False


class Admissions:
    """The admissions of one worker session. Thread-safe."""

    def __init__(self, store: Store, outbox: Outbox, *, unbegun: Unbegun, clock: BrokerClock) -> None:
        self._store = store
        self._outbox = outbox
        self._unbegun = unbegun
        self._clock = clock
        self._began_at = clock.now()

    def accept(
        self,
        run_id: str,
        *,
        task: str,
        envelope: Envelope,
        item: str,
        begin: bool = False,
        verdict: Told | None = None,
        approve_before: float | None = None,
    ) -> Accepted:
        """Write a run down; nothing changes where it is known already.

        It is durable after the next `sync`, and its message must not leave the broker before. With `begin`, a run that
        is due is claimed in the same transaction; that is for runs which may be begun twice. With `approve_before`, it
        waits until somebody approves it, until that moment at most.
        """
        now = self._clock.now()
        due_at = max(now, envelope.not_before or 0.0)
        with self._store.transaction() as transaction:
            attempt = attempts.coming(transaction, run_id)
            if attempt is None:
                self._answer_again(transaction, run_id)
                return Accepted(Admission.KNOWN, repeated=self._is_over(transaction, run_id))
            forgotten = self._store.recall("forgotten")
            if attempt == 1 and forgotten is not None and envelope.submitted_at <= float(forgotten):
                return Accepted(Admission.FORGOTTEN)
            cancelled = requested(transaction, run_id)
            parked = approve_before is not None and not cancelled
            begun = begin and due_at <= now and not cancelled and not parked
            transaction.execute(
                "INSERT INTO journal (run_id, attempt, state, task, envelope, item, handed_over, submitted_at, "
                "due_at, not_after, approve_before, verdict, accepted_at, started_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id,
                    attempt,
                    "awaiting" if parked else "started" if begun else "accepted",
                    task,
                    envelope.model_dump_json(),
                    item,
                    int(begun),
                    envelope.submitted_at,
                    due_at,
                    envelope.not_after,
                    approve_before,
                    verdict and verdict.model_dump_json(),
                    now,
                    now if begun else None,
                ),
            )
            if cancelled:
                self._unbegun.end_cancelled(transaction, run_id, cancelled)
                return Accepted(Admission.CANCELLED)
            told: dict[str, Any] = {"verdict": verdict.model_dump(mode="json")} if verdict else {}
            if parked:
                told |= {"digest": approvals.digest(item), "approve_before": approve_before}
                self._outbox.add(transaction, Kind.RUN_AWAITING_APPROVAL, run_id=run_id, attempt=attempt, data=told)
                return Accepted(Admission.PARKED)
            self._outbox.add(transaction, Kind.RUN_ACCEPTED, run_id=run_id, attempt=attempt, data=told)
            if begun:
                self._outbox.add(transaction, Kind.RUN_STARTED, run_id=run_id, attempt=attempt)
        if begun:
            return Accepted(Admission.BEGUN, Claim(run_id, attempt, task, envelope, item, now, verdict))
        return Accepted(Admission.DUE if due_at <= now else Admission.WAITS)

    def _answer_again(self, transaction: sqlite3.Connection, run_id: str) -> None:
        """Report once more how a run ended, because its message came again: somebody may not have heard."""
        now = self._clock.now()
        row = transaction.execute(
            "UPDATE journal SET finished_at = ? WHERE run_id = ? AND state = 'finished' AND answer IS NOT NULL "
            "AND finished_at < ? AND attempt = (SELECT max(attempt) FROM journal WHERE run_id = ?) "
            "RETURNING attempt, outcome, answer",
            (now, run_id, now - _ANSWERED_LATELY, run_id),
        ).fetchone()
        if row is not None:
            attempt, outcome, answer = row
            self._outbox.add(transaction, Kind(outcome), run_id=run_id, attempt=attempt, data=json.loads(answer))

    def _is_over(self, transaction: sqlite3.Connection, run_id: str) -> bool:
        """Say whether a run was accepted by this session, or ended so long ago that no inbox holds its message."""
        row = transaction.execute(
            "SELECT 1 FROM journal WHERE run_id = ? AND (accepted_at >= ? OR finished_at < ?) LIMIT 1",
            (run_id, self._began_at, self._clock.now() - _INBOX_SECONDS),
        ).fetchone()
        return row is not None
