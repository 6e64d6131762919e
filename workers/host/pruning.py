"""Pruning: what the journal forgets, and when.

A run is remembered for longer than its message may be on its way, `LONGEST_WAY_SECONDS` from its submission or its
`not_before`, which comes as long after it at most: a copy that comes later is refused for its age, so it is never taken
for a new run. What a run answered is kept for a day, in case somebody asks again.

The age is told by the broker's clock, and a broker may lie. So the journal also keeps when the youngest run that it
forgot was submitted, as its principal signed it, and takes nothing that was submitted before (`Admissions.accept`):
what ran never runs again, whatever the time is said to be. With a true clock nothing else is refused by that: what is
on its way was submitted after all that is forgotten.
"""

import sqlite3
from collections.abc import Callable

from fleet import logs
from fleet.broker.results import RESULT_TTL_SECONDS
from fleet.clock import BrokerClock
from fleet.contracts.envelope import LONGEST_WAY_SECONDS
from workers.host.store import Store

log = logs.get(__name__)

#: The broker's clock may be corrected meanwhile.
_MARGIN_SECONDS = 86_400.0
#: Rows in one transaction; the journal is locked for a few milliseconds.
_PART = 1_000

_Values = tuple[float, ...]
_Change = Callable[[sqlite3.Connection, str, _Values], int]


class Pruning:
    """Deletes old rows, a part at a time."""

    def __init__(self, store: Store, *, clock: BrokerClock) -> None:
        self._store = store
        self._clock = clock

    def run(self) -> None:
        """Forget everything that is old enough."""
        now = self._clock.now()
        forgotten = now - 2 * LONGEST_WAY_SECONDS - _MARGIN_SECONDS
        # The moment of the latest ending counts: it is later than the submission, so nothing is forgotten too early.
        deleted = self._repeat(
            self._forget,
            "DELETE FROM journal WHERE rowid IN (SELECT rowid FROM journal AS old WHERE state = 'finished' "
            "AND finished_at < ? AND NOT EXISTS (SELECT 1 FROM journal WHERE run_id = old.run_id "
            "AND (state != 'finished' OR finished_at >= ?)) LIMIT ?) RETURNING submitted_at",
            (forgotten, forgotten, _PART),
        )
        self._repeat(
            _change,
            "UPDATE journal SET answer = NULL, envelope = '' WHERE rowid IN (SELECT rowid FROM journal "
            "WHERE state = 'finished' AND finished_at < ? AND answer IS NOT NULL LIMIT ?)",
            (now - RESULT_TTL_SECONDS, _PART),
        )
        self._repeat(
            _change,
            "DELETE FROM cancelled WHERE rowid IN (SELECT rowid FROM cancelled WHERE at < ? LIMIT ?)",
            (forgotten, _PART),
        )
        if deleted:
            log.info("journal.pruned", attempts=deleted)

    def _forget(self, transaction: sqlite3.Connection, statement: str, values: _Values) -> int:
        submitted = [at for (at,) in transaction.execute(statement, values).fetchall()]
        if submitted:
            known = self._store.recall("forgotten")
            self._store.remember(transaction, "forgotten", repr(max(submitted + ([float(known)] if known else []))))
        return len(submitted)

    def _repeat(self, change: _Change, statement: str, values: _Values) -> int:
        """Execute a statement that changes a part at a time, until there is nothing left for it; return the count."""
        total = 0
        while True:
            with self._store.transaction() as transaction:
                count = change(transaction, statement, values)
            total += count
            if count < _PART:
                return total


def _change(transaction: sqlite3.Connection, statement: str, values: _Values) -> int:
    return transaction.execute(statement, values).rowcount
