"""The outbox: every report of this host, written before it is sent, numbered without gaps, kept until acknowledged.

Reports are added inside the transaction that makes them true. They leave in order; a report may be sent twice (the
control plane knows by its number), but none is skipped.
"""

import json
import sqlite3
import threading
from dataclasses import dataclass
from typing import Any

from fleet import names
from fleet.clock import BrokerClock
from fleet.contracts.reports import Kind, Report
from workers.host import kernel
from workers.host.store import Store

#: Characters of reports and results that are in memory at once, but for the last of them: those of commands are large.
_MOST_AT_ONCE = 2 * 1024 * 1024


@dataclass(frozen=True)
class Outgoing:
    """One report on its way, and the run's result where one goes with it."""

    epoch: int
    seq: int
    report: str
    run_id: str | None
    result: str | None


class Outbox:
    """The outbox of one worker session."""

    def __init__(self, store: Store, *, host: str, epoch: int, clock: BrokerClock) -> None:
        self._store = store
        self._sender = names.host_sender(host)
        self.epoch = epoch
        self._clock = clock
        #: set whenever there may be something to send; at the start, what a former session left
        self.news = threading.Event()
        self.news.set()
        #: set when somebody waits for what is to be sent
        self.urgent = threading.Event()
        with store.transaction(durable=True) as transaction:
            store.remember(transaction, "epoch", str(epoch))
            store.remember(transaction, "boot", kernel.boot())
            store.remember(transaction, "seq", "0")

    def add(
        self,
        transaction: sqlite3.Connection,
        kind: Kind,
        *,
        run_id: str | None = None,
        attempt: int | None = None,
        data: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
    ) -> None:
        """Add a report within `transaction`; `result` is in Celery's form (`fleet.broker.results`)."""
        (seq,) = transaction.execute(
            "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'seq' RETURNING CAST(value AS INTEGER)"
        ).fetchone()
        report = Report(
            sender=self._sender,
            epoch=self.epoch,
            seq=seq,
            kind=kind,
            run=run_id,
            attempt=attempt,
            at=self._clock.now(),
            data=data or {},
        )
        transaction.execute(
            "INSERT INTO outbox (epoch, seq, report, run_id, result) VALUES (?, ?, ?, ?, ?)",
            (self.epoch, seq, report.model_dump_json(), run_id, json.dumps(result) if result else None),
        )
        self._store.after_commit(self.tell if result is None else self.tell_urgently)

    def tell(self) -> None:
        """Say that there is something to send, and that it may wait for more."""
        self.news.set()

    def tell_urgently(self) -> None:
        """Say that there is something to send at once."""
        self.urgent.set()
        self.news.set()

    def report(self, kind: Kind, data: dict[str, Any] | None = None) -> None:
        """Add a report that belongs to no run, in a transaction of its own."""
        with self._store.transaction() as transaction:
            self.add(transaction, kind, data=data)

    def ask(self, kind: Kind, run_id: str, data: dict[str, Any]) -> None:
        """Add a report by which a run asks for something, and have it sent at once."""
        with self._store.transaction() as transaction:
            self.add(transaction, kind, run_id=run_id, data=data)
        self.tell_urgently()

    def unsent(self, limit: int = 200) -> list[Outgoing]:
        """Return the oldest reports that have not been handed to the broker, fewer where they are large."""
        found: list[Outgoing] = []
        size = 0
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT epoch, seq, report, run_id, result FROM outbox WHERE sent = 0 ORDER BY epoch, seq LIMIT ?",
                (limit,),
            )
            while size < _MOST_AT_ONCE and (row := rows.fetchone()):
                found.append(Outgoing(*row))
                size += len(found[-1].report) + len(found[-1].result or "")
            rows.close()
        return found

    def mark_sent(self, reports: list[Outgoing]) -> None:
        """Remember that the broker has these."""
        with self._store.transaction() as transaction:
            transaction.executemany(
                "UPDATE outbox SET sent = 1 WHERE epoch = ? AND seq = ?", [(r.epoch, r.seq) for r in reports]
            )

    def acknowledge(self, epoch: int, seq: int) -> None:
        """Let go of that session's reports up to this one: the control plane has recorded them.

        Each session is acknowledged on its own: what a broker lost of an earlier one is kept, though a later one is
        on record.
        """
        with self._store.transaction() as transaction:
            transaction.execute("DELETE FROM outbox WHERE epoch = ? AND seq <= ?", (epoch, seq))

    def backlog(self) -> int:
        """Return how many reports the broker does not have yet."""
        return self._count("sent = 0")

    def unacknowledged(self) -> int:
        """Return how many reports the broker has been given and nobody has recorded yet."""
        return self._count("sent = 1")

    def send_again(self) -> None:
        """Have everything sent once more that nobody has recorded: the broker may have lost it."""
        with self._store.transaction() as transaction:
            if transaction.execute("UPDATE outbox SET sent = 0 WHERE sent = 1").rowcount:
                self._store.after_commit(self.tell)

    def _count(self, condition: str) -> int:
        with self._store.transaction() as transaction:
            (count,) = transaction.execute(f"SELECT count(*) FROM outbox WHERE {condition}").fetchone()  # noqa: S608 - ours
        return int(count)
