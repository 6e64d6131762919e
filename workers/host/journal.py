"""The journal: what this host accepted, started and finished; the memory by which nothing runs twice.

A run is `accepted` before its message leaves the broker, claimed (`accepted → started`) exactly once before any effect,
and `finished` together with the report and the result of it (`workers.host.endings`). What waits, waits here: for its
time, for another attempt, or for a place in the pool after a restart.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from fleet.broker import results
from fleet.clock import BrokerClock
from fleet.contracts.control import CancelRun
from fleet.contracts.envelope import Envelope
from fleet.contracts.reports import Kind
from workers.host.outbox import Outbox
from workers.host.store import Store

#: Outcome of an attempt that was handed back because the worker crashed while it ran.
CRASHED_AND_HANDED_BACK = "crashed_and_handed_back"
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
    #: its run is in the journal already
    KNOWN = "known"
    #: it was submitted before a run that the journal has forgotten, and may be one of those
    FORGOTTEN = "forgotten"
    #: its end was asked for before it came; it never runs
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Claim:
    """The right to carry out one attempt at a run."""

    run_id: str
    attempt: int
    task: str
    envelope: Envelope
    #: the queue item
    item: str
    #: unix seconds by the broker's clock
    started_at: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments as they were pushed; the guard has checked their form."""
        _args, arguments, _embed = json.loads(json.loads(self.item)["body"])
        return dict(arguments)


@dataclass(frozen=True)
class Accepted:
    """What became of a message, with the claim where it was claimed at once."""

    admission: Admission
    claim: Claim | None = None
    #: of a run that is known: this is no message that a former session left in its inbox
    repeated: bool = False


class Journal:
    """The journal of one worker session. Thread-safe."""

    def __init__(self, store: Store, outbox: Outbox, *, clock: BrokerClock) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._began_at = clock.now()
        self.sync = store.sync

    @property
    def id(self) -> str:
        """What identifies this journal file."""
        return self._store.recall("id") or ""

    def accept(self, run_id: str, *, task: str, envelope: Envelope, item: str, begin: bool = False) -> Accepted:
        """Write a run down; nothing changes where it is known already.

        It is durable after the next `sync`, and its message must not leave the broker before. With `begin`, a run that
        is due is claimed in the same transaction; that is for runs which may be begun twice.
        """
        now = self._clock.now()
        due_at = max(now, envelope.not_before or 0.0)
        with self._store.transaction() as transaction:
            attempt = self._next_attempt(transaction, run_id)
            if attempt is None:
                self._answer_again(transaction, run_id)
                return Accepted(Admission.KNOWN, repeated=self._is_over(transaction, run_id))
            forgotten = self._store.recall("forgotten")
            if attempt == 1 and forgotten is not None and envelope.submitted_at <= float(forgotten):
                return Accepted(Admission.FORGOTTEN)
            cancelled = self._cancelled(transaction, run_id)
            begun = begin and due_at <= now and not cancelled
            transaction.execute(
                "INSERT INTO journal (run_id, attempt, state, task, envelope, item, handed_over, submitted_at, "
                "due_at, not_after, accepted_at, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id,
                    attempt,
                    "started" if begun else "accepted",
                    task,
                    envelope.model_dump_json(),
                    item,
                    int(begun),
                    envelope.submitted_at,
                    due_at,
                    envelope.not_after,
                    now,
                    now if begun else None,
                ),
            )
            if cancelled:
                self.end_unbegun(transaction, run_id, cancelled)
                return Accepted(Admission.CANCELLED)
            self._outbox.add(transaction, Kind.RUN_ACCEPTED, run_id=run_id, attempt=attempt)
            if begun:
                self._outbox.add(transaction, Kind.RUN_STARTED, run_id=run_id, attempt=attempt)
        if begun:
            return Accepted(Admission.BEGUN, Claim(run_id, attempt, task, envelope, item, now))
        return Accepted(Admission.DUE if due_at <= now else Admission.WAITS)

    def pushed_by(self, run_id: str) -> str | None:
        """Return the principal who pushed a run; None where it is not known."""
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "SELECT envelope FROM journal WHERE run_id = ? AND envelope != '' LIMIT 1", (run_id,)
            ).fetchone()
        return Envelope.model_validate_json(row[0]).submitted_by if row else None

    def message(self, run_id: str) -> str | None:
        """Return the queue item of a run that is carried out; None for any other."""
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "SELECT item FROM journal WHERE run_id = ? AND state = 'started'", (run_id,)
            ).fetchone()
        return row[0] if row else None

    def refuse(self, run_id: str, *, reason: str, detail: str) -> None:
        """Report that a message was refused and never ran, unless the run is known: then it answers for itself.

        Nothing is remembered of it: the message may be somebody's forgery of one that is still to come.
        """
        with self._store.transaction() as transaction:
            if self._next_attempt(transaction, run_id) is None:
                return
            meta = results.failure_meta(
                run_id, state="rejected", kind=reason, message=detail, date_done=self._clock.iso()
            )
            data = {"reason": reason, "detail": detail}
            self._outbox.add(transaction, Kind.RUN_REJECTED, run_id=run_id, data=data, result=meta)

    def expire(self, run_id: str, *, expired_at: float, submitted_at: float) -> None:
        """Report that a run's time was over before it began, and remember it; an accepted one is finished by it.

        Nothing changes for a run that has begun, also where it waits for another attempt.
        """
        now, data = self._clock.now(), {"expired_at": expired_at}
        message = f"{run_id} not begun by {datetime.fromtimestamp(expired_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
        meta = results.failure_meta(
            run_id, state="expired", kind="expired", message=message, date_done=self._clock.iso()
        )
        with self._store.transaction() as transaction:
            if finish(transaction, run_id, Kind.RUN_EXPIRED, data, state="accepted", at=now, attempt=1) is None:
                attempt = self._next_attempt(transaction, run_id)
                if attempt is None:
                    return
                transaction.execute(
                    "INSERT INTO journal (run_id, attempt, state, task, envelope, handed_over, submitted_at, due_at, "
                    "accepted_at, finished_at, outcome, answer) VALUES (?, ?, 'finished', '', '', 1, ?, ?, ?, ?, ?, ?)",
                    (run_id, attempt, submitted_at, now, now, now, Kind.RUN_EXPIRED, json.dumps(data)),
                )
            self._outbox.add(transaction, Kind.RUN_EXPIRED, run_id=run_id, data=data, result=meta)

    def claim(self, run_id: str, *, durable: bool, held: bool = False) -> Claim | None:
        """Claim the accepted attempt at a run; None where there is nothing to claim. One caller gets it, ever.

        With `durable` the claim survives power loss when this returns, for runs that must not begin twice. `held` says
        that the run will not begin before its message was removed (`workers.host.handover`): until `handed_over`, the
        claim can be taken back. A run whose time is over is finished as expired instead; later attempts at it do not
        expire.
        """
        now = self._clock.now()
        with self._store.transaction(durable=durable) as transaction:
            row = transaction.execute(
                "UPDATE journal SET state = 'started', started_at = ?, handed_over = ? WHERE run_id = ? "
                "AND state = 'accepted' AND (attempt > 1 OR not_after IS NULL OR not_after >= ?) "
                "RETURNING attempt, task, envelope, item",
                (now, int(not held), run_id, now),
            ).fetchone()
            if row is not None:
                attempt, task, envelope, item = row
                self._outbox.add(transaction, Kind.RUN_STARTED, run_id=run_id, attempt=attempt)
            late = transaction.execute(
                "SELECT not_after, submitted_at FROM journal WHERE run_id = ? AND state = 'accepted'", (run_id,)
            ).fetchone()
        if late is not None:
            self.expire(run_id, expired_at=late[0], submitted_at=late[1])
        if row is None:
            return None
        return Claim(run_id, attempt, task, Envelope.model_validate_json(envelope), item, now)

    def unclaim(self, run_id: str, *, certain: bool = False) -> bool:
        """Take a claim back whose message was waited for and is still there: its effect never began.

        Return whether that is so. A copy of the message says nothing about a run that began without waiting, or after
        the first one was removed. With `certain`, somebody saw that the effect never began.
        """
        with self._store.transaction() as transaction:
            return bool(
                transaction.execute(
                    "UPDATE journal SET state = 'accepted', started_at = NULL WHERE run_id = ? AND state = 'started' "
                    "AND (handed_over = 0 OR ?)",
                    (run_id, certain),
                ).rowcount
            )

    def disown(self, run_id: str) -> None:
        """Forget a run that has not begun, because its message is in the broker, for this session or a newer one."""
        with self._store.transaction(durable=True) as transaction:
            transaction.execute("DELETE FROM journal WHERE run_id = ? AND state != 'finished'", (run_id,))

    def handed_over(self, run_ids: Iterable[str]) -> None:
        """Remember that the messages of these runs have left the inbox."""
        with self._store.transaction() as transaction:
            transaction.executemany("UPDATE journal SET handed_over = 1 WHERE run_id = ?", [(run,) for run in run_ids])

    def due(self, limit: int, *, besides: Iterable[str] = ()) -> list[tuple[str, str]]:
        """Return accepted runs whose time has come, with their queue items, those that wait longest first."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT run_id, item FROM journal WHERE state = 'accepted' AND due_at <= ? ORDER BY due_at, rowid "
                "LIMIT ?",
                (self._clock.now(), limit + len(taken := frozenset(besides))),
            ).fetchall()
        return [(run_id, item) for run_id, item in rows if run_id not in taken][:limit]

    def waiting(self, *, unsettled: bool = False) -> list[tuple[str, str]]:
        """Return runs that never began and are due, with their queue items, the newest first.

        With `unsettled`, those (due or not) of which it is not certain that their messages have left the inbox; a run
        that was handed back before is one of them.
        """
        which = "handed_over = 0" if unsettled else "attempt = 1 AND due_at <= ?"
        with self._store.transaction() as transaction:
            return transaction.execute(
                f"SELECT run_id, item FROM journal WHERE state = 'accepted' AND {which} "  # noqa: S608 - ours
                "ORDER BY accepted_at DESC, rowid DESC",
                () if unsettled else (self._clock.now(),),
            ).fetchall()

    def interrupted(self) -> list[Claim]:
        """Return runs that have begun and not finished, the oldest first."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT run_id, attempt, task, envelope, item, started_at FROM journal WHERE state = 'started' "
                "ORDER BY started_at"
            ).fetchall()
        return [
            Claim(run_id, attempt, task, Envelope.model_validate_json(envelope), item, started_at)
            for run_id, attempt, task, envelope, item, started_at in rows
        ]

    def unfinished(self, limit: int) -> list[str] | None:
        """Return the ids of all runs that have not ended; None where they are more than `limit`."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT DISTINCT run_id FROM journal WHERE state != 'finished' LIMIT ?", (limit + 1,)
            ).fetchall()
        return None if len(rows) > limit else [run_id for (run_id,) in rows]

    def recovering(self) -> int:
        """Return how many runs were taken up after a crash and have not ended since."""
        with self._store.transaction() as transaction:
            (count,) = transaction.execute(
                "SELECT count(*) FROM journal WHERE state != 'finished' AND recovered = 1"
            ).fetchone()
        return int(count)

    def cancel(self, request: CancelRun) -> bool:
        """End a run that has not begun, also one whose message has yet to come; return whether it is running now.

        The request is durable when this returns.
        """
        with self._store.transaction(durable=True) as transaction:
            row = transaction.execute(
                "SELECT state FROM journal WHERE run_id = ? ORDER BY attempt DESC LIMIT 1", (request.run,)
            ).fetchone()
            if self._next_attempt(transaction, request.run) is not None:
                transaction.execute(
                    "INSERT INTO cancelled VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (request.run, request.model_dump_json(), self._clock.now()),
                )
            elif row and row[0] == "accepted":
                self.end_unbegun(transaction, request.run, request)
        return row is not None and row[0] == "started"

    def end_unbegun(self, transaction: sqlite3.Connection, run_id: str, request: CancelRun) -> None:
        """Finish an accepted attempt as cancelled, within `transaction`."""
        now = self._clock.now()
        data = {"by": request.by, "reason": request.reason, "begun": False}
        attempt = finish(transaction, run_id, Kind.RUN_CANCELLED, data, state="accepted", at=now)
        if attempt is not None:
            meta = cancelled_meta(run_id, request, date_done=self._clock.iso())
            self._outbox.add(transaction, Kind.RUN_CANCELLED, run_id=run_id, attempt=attempt, data=data, result=meta)

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

    @staticmethod
    def _next_attempt(transaction: sqlite3.Connection, run_id: str) -> int | None:
        """Return which attempt a message begins; None where its run is known, and not one that was handed back."""
        row = transaction.execute(
            "SELECT attempt, outcome FROM journal WHERE run_id = ? ORDER BY attempt DESC LIMIT 1", (run_id,)
        ).fetchone()
        if row is None:
            return 1
        attempt, outcome = row
        return attempt + 1 if outcome in {Kind.RUN_HANDED_BACK, CRASHED_AND_HANDED_BACK} else None

    @staticmethod
    def _cancelled(transaction: sqlite3.Connection, run_id: str) -> CancelRun | None:
        row = transaction.execute("SELECT requested FROM cancelled WHERE run_id = ?", (run_id,)).fetchone()
        return CancelRun.model_validate_json(row[0]) if row else None


def finish(
    transaction: sqlite3.Connection,
    run_id: str,
    outcome: str,
    answer: dict[str, Any] | None,
    *,
    state: str,
    at: float,
    attempt: int | None = None,
) -> int | None:
    """Finish the attempt at a run that is in `state`, and no other than `attempt`; return its number, None without one.

    An attempt that was given up may still have its say while the next one runs.
    """
    row = transaction.execute(
        "UPDATE journal SET state = 'finished', finished_at = ?, outcome = ?, answer = ?, item = NULL "
        "WHERE run_id = ? AND state = ? AND attempt = coalesce(?, attempt) RETURNING attempt",
        (at, outcome, None if answer is None else json.dumps(answer), run_id, state, attempt),
    ).fetchone()
    return None if row is None else int(row[0])


def cancelled_meta(run_id: str, request: CancelRun, *, date_done: str) -> dict[str, Any]:
    """Return the result of a cancelled run, in Celery's form."""
    message = f"cancelled by {request.by}" + (f": {request.reason}" if request.reason else "")
    return results.failure_meta(run_id, state="cancelled", kind="cancelled", message=message, date_done=date_done)
