"""The host's own database: one SQLite file that holds journal and outbox, so that both change in one transaction.

It is the truth about what this host accepted, started and finished. A file that is not ours, or damaged, is refused
and never replaced: with it would go the memory of what has already run.

A commit survives the end of the process at once, and power loss after the next `sync`, which is one fdatasync of the
write-ahead log for everybody who waits for it. SQLite's own `synchronous = FULL` would pay one for each commit, and
hold the lock meanwhile.
"""

import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import errors

#: SQLite's application_id of a journal ("FLjr"), so that another program's file is recognised.
APPLICATION_ID = 0x464C6A72
SCHEMA_VERSION = 4

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE journal (
    run_id      TEXT NOT NULL,
    attempt     INTEGER NOT NULL,       -- 1, 2, 3 …; the highest is the current one
    state       TEXT NOT NULL CHECK (state IN ('awaiting', 'accepted', 'started', 'finished')),
    task        TEXT NOT NULL,
    envelope    TEXT NOT NULL,          -- contracts.envelope.Envelope as JSON
    item        TEXT,                   -- the queue item, byte for byte; NULL once the run has ended
    handed_over INTEGER NOT NULL,       -- 1 once the item has left the inbox, or the run began without waiting for it
    recovered   INTEGER NOT NULL DEFAULT 0,  -- 1 in an attempt that was taken up after a crash
    submitted_at REAL NOT NULL,         -- as the principal signed it; unix seconds
    due_at      REAL NOT NULL,          -- does not begin before; unix seconds by the broker's clock, as the following
    not_after   REAL,
    approve_before REAL,                -- of a run that waits, or waited, for approval
    verdict     TEXT,                   -- contracts.verdicts.Told as JSON, of a run that the policy was asked about
    approval    TEXT,                   -- security.signing.SignedControl as JSON, of one that somebody approved
    accepted_at REAL NOT NULL,
    started_at  REAL,
    finished_at REAL,
    outcome     TEXT,                   -- what ended the attempt: kind of the last report, or an `Interruption`
    answer      TEXT,                   -- data of the last report as JSON, for as long as it may be asked for again
    PRIMARY KEY (run_id, attempt)
) STRICT;
CREATE INDEX journal_unfinished ON journal (state, due_at) WHERE state != 'finished';
CREATE INDEX journal_finished ON journal (finished_at) WHERE state = 'finished';
CREATE TABLE cancelled (                -- asked for before the run ended, or its message came
    run_id      TEXT PRIMARY KEY,
    requested   TEXT NOT NULL,          -- contracts.control.CancelRun as JSON
    at          REAL NOT NULL
) STRICT;
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
        self._sync_turn = threading.Lock()
        self._committed = self._synced = 0
        self._sync_failure = ""
        self._trouble = ""
        self._after_commit: list[Callable[[], None]] = []
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                path.chmod(0o600)
                self._prepare(host)
                # Nothing but the log is written between checkpoints, and SQLite locks other files than this one:
                # a descriptor of our own on it does no harm when it is closed.
                self._log: int | None = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
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
        self._connection.execute("PRAGMA synchronous = FULL")  # with the first commit, the log's name is durable too
        if tables == 0:
            with self.transaction() as connection:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("INSERT INTO meta VALUES ('host', ?), ('id', ?)", (host, str(uuid.uuid4())))
        else:
            self._recognise(host, application_id=application_id, version=version)
            with self.transaction() as connection:
                self.remember(connection, "opened", str(int(self.recall("opened") or 0) + 1))
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def _recognise(self, host: str, *, application_id: int, version: int) -> None:
        if application_id != APPLICATION_ID:
            raise self._refusal("is another program's file")
        if version != SCHEMA_VERSION:
            raise self._refusal(f"has version {version}, this Fleet reads {SCHEMA_VERSION}")
        (owner,) = self._connection.execute("SELECT value FROM meta WHERE key = 'host'").fetchone()
        if owner != host:
            raise self._refusal(f"belongs to host {owner!r}")
        [(health,)] = self._connection.execute("PRAGMA quick_check(1)").fetchall()
        if health != "ok":
            raise sqlite3.DatabaseError(f"it is damaged ({health})")

    def _refusal(self, problem: str) -> errors.LocalFault:
        return errors.LocalFault(
            f"journal {self.path}: {problem}", remedy="move it away, or set another state directory"
        )

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction: all of it, or nothing.

        It survives the end of the process as soon as the block is left; a durable one power loss as well. Blocks that
        are nested are one transaction, and durable if the outermost one is.
        """
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._connection.rollback()  # a COMMIT that failed may leave its transaction open
                    self._after_commit.clear()
                    raise
            except sqlite3.OperationalError as exc:  # full, locked, or the disk fails
                self._trouble = str(exc)
                raise
            self._trouble = ""
            self._committed += 1
            callbacks, self._after_commit = self._after_commit, []
        for callback in callbacks:
            callback()
        if durable:
            self.sync()

    @property
    def trouble(self) -> str:
        """Why nothing can be written, by the last try; empty while it can."""
        return self._sync_failure or self._trouble

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once the running transaction is committed; if it is not, never."""
        self._after_commit.append(callback)

    def sync(self) -> None:
        """Return when everything that was committed before this call survives power loss.

        Raises `sqlite3.OperationalError` where the disk fails; what is on it is then not known. Linux drops what it
        could not write and lets the next fdatasync succeed, so after one failure nothing is promised any more.
        """
        needed = self._committed
        with self._sync_turn:
            if self._synced >= needed:
                return  # whoever had the turn before synced for me
            if self._log is None or self._sync_failure:
                raise sqlite3.OperationalError(f"cannot be synced ({self._sync_failure or 'it is closed'})")
            reached = self._committed
            try:
                os.fdatasync(self._log)
            except OSError as exc:
                self._sync_failure = str(exc)
                raise sqlite3.OperationalError(f"cannot be synced ({exc})") from exc
            self._synced = reached

    def remember(self, transaction: sqlite3.Connection, key: str, value: str) -> None:
        """Set one of the few single values.

        `host`; `id` of this file; `opened`, how often; `boot` of the machine (`workers.host.kernel`); `epoch` of the
        newest session and `seq` of its newest report; `reconciled` (see `workers.host.inboxes`); `availability` (see
        `workers.host.availability`); `forgotten` (see `workers.host.pruning`).
        """
        transaction.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def recall(self, key: str) -> str | None:
        with self._lock:
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._sync_turn, self._lock:  # a descriptor that is closed under a sync may be another file's by then
            if self._log is not None:
                os.close(self._log)
                self._log = None
                self._connection.close()
