"""The host's own database: one SQLite file that holds journal and outbox, so that both change in one transaction.

It is the truth about what this host accepted, started and finished. A file that is not ours, or damaged, is refused
and never replaced: with it would go the memory of what has already run.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import errors

#: SQLite's application_id of a journal ("FLjr"), so that another program's file is recognised.
APPLICATION_ID = 0x464C6A72
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE journal (
    run_id      TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('accepted', 'started', 'finished')),
    task        TEXT NOT NULL,
    envelope    TEXT NOT NULL,          -- contracts.envelope.Envelope as JSON
    item        TEXT NOT NULL,          -- the queue item, byte for byte
    not_after   REAL,                   -- unix seconds by the broker's clock, as the following
    accepted_at REAL NOT NULL,
    started_at  REAL,
    finished_at REAL,
    outcome     TEXT,                   -- kind of the last report: run.succeeded, run.failed, run.expired
    PRIMARY KEY (run_id, attempt)
) STRICT;
CREATE INDEX journal_unfinished ON journal (state) WHERE state != 'finished';
CREATE TABLE outbox (
    epoch       INTEGER NOT NULL,
    seq         INTEGER NOT NULL,       -- 1, 2, 3 … without gaps within the epoch
    report      TEXT NOT NULL,          -- contracts.reports.Report as JSON
    run_id      TEXT,                   -- set where a result goes with it
    result      TEXT,                   -- the result in Celery's form, as JSON
    sent        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (epoch, seq)
) STRICT;
CREATE INDEX outbox_unsent ON outbox (epoch, seq) WHERE sent = 0;
"""


class Store:
    """An open journal file. Thread-safe: transactions take turns."""

    def __init__(self, path: Path, *, host: str) -> None:
        """Open or make the file; raises `errors.LocalFault` for one that is not this host's journal, or damaged."""
        self.path = path
        self._lock = threading.RLock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                path.chmod(0o600)
                self._prepare(host)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.DatabaseError as exc:
            raise errors.LocalFault(
                f"journal {path}: {exc}",
                remedy="it is full, damaged or not a journal; free some space, or move it away to begin a new one "
                "(what it had not reported yet is then not known to the fleet)",
            ) from exc

    def _prepare(self, host: str) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        (application_id,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            with self.transaction() as connection:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("INSERT INTO meta VALUES ('host', ?)", (host,))
            return
        if application_id != APPLICATION_ID:
            raise self._refusal("is another program's file")
        if version != SCHEMA_VERSION:
            raise self._refusal(f"has version {version}, this Fleet reads {SCHEMA_VERSION}")
        (owner,) = self._connection.execute("SELECT value FROM meta WHERE key = 'host'").fetchone()
        if owner != host:
            raise self._refusal(f"belongs to host {owner!r}")

    def _refusal(self, problem: str) -> errors.LocalFault:
        return errors.LocalFault(
            f"journal {self.path}: {problem}", remedy="move it away, or set another state directory"
        )

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction: all of it, or nothing.

        A durable one survives power loss. The others survive the end of the process, and cost no fsync: they are for
        what may be forgotten without harm, such as that a report was sent.
        """
        with self._lock:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()  # a COMMIT that failed may leave its transaction open
                raise

    def remember(self, transaction: sqlite3.Connection, key: str, value: str) -> None:
        """Set one of the few single values.

        `host`; `epoch` of the newest session and `seq` of its newest report; `reconciled` (see `workers.host.inboxes`).
        """
        transaction.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def recall(self, key: str) -> str | None:
        with self.transaction() as transaction:
            row = transaction.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        with self._lock:
            self._connection.close()
