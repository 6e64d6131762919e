"""The journal's file: what `sync` promises, and what it costs."""

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.sessions import Session, raw
from tests.services.waiting import until

THREADS = 20


class Disk:
    """The real fdatasync; it counts, keeps copies of what it has made safe, and can be held up or broken."""

    def __init__(self, session: Session, copies: Path) -> None:
        self.session = session
        self.copies = copies
        self.syncs = 0
        self.error: OSError | None = None
        self.hold_first_until: Callable[[], bool] = lambda: True
        self._real = os.fdatasync

    def fdatasync(self, descriptor: int) -> None:
        self.syncs += 1
        if self.syncs == 1:
            until(self.hold_first_until, "everybody has committed")
        if self.error is not None:
            error, self.error = self.error, None  # as Linux: what could not be written is told of once
            raise error
        with self.session.store._lock:  # nobody writes while it is copied
            self._real(descriptor)
            copy = self.copies / str(self.syncs)
            copy.mkdir(parents=True)
            for suffix in ("", "-wal"):
                shutil.copy(f"{self.session.path}{suffix}", copy / f"journal.db{suffix}")

    def newest(self) -> Path:
        return self.copies / str(self.syncs) / "journal.db"


@pytest.fixture
def disk(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(session, tmp_path / "copies")
    monkeypatch.setattr(os, "fdatasync", made.fdatasync)
    return made


def all_at_once(work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def everybody_committed(session: Session) -> Callable[[], bool]:
    """Return whether as many transactions as there are threads have been committed since now."""
    before = session.store._committed
    return lambda: session.store._committed >= before + THREADS


def remembered(path: Path) -> set[str]:
    with raw(path) as connection:
        return {run_id for (run_id,) in connection.execute("SELECT run_id FROM journal WHERE state = 'started'")}


def test_who_waits_for_the_disk_at_the_same_time_shares_one_sync_and_each_finds_its_own_there(
    session: Session, disk: Disk
) -> None:
    waiting = [session.accept() for _ in range(THREADS)]
    told: list[tuple[str, Path]] = []
    disk.hold_first_until = everybody_committed(session)

    def claim() -> None:
        run_id = waiting.pop()
        assert session.journal.claim(run_id, durable=True)
        told.append((run_id, disk.newest()))

    all_at_once(claim)
    assert disk.syncs == 2  # the first was under way when the others came; the second is for all of them
    assert len(told) == THREADS
    for run_id, path in told:
        assert run_id in remembered(path)


def test_nobody_is_told_that_it_is_safe_when_the_disk_failed_once_and_then_seems_well(
    session: Session, disk: Disk
) -> None:
    waiting = [session.accept() for _ in range(THREADS)]
    disk.hold_first_until = everybody_committed(session)
    disk.error = OSError(errno.EIO, "Input/output error")
    told: list[str] = []
    failed: list[sqlite3.OperationalError] = []

    def claim() -> None:
        run_id = waiting.pop()
        try:
            session.journal.claim(run_id, durable=True)
            told.append(run_id)
        except sqlite3.OperationalError as exc:
            failed.append(exc)

    all_at_once(claim)
    # Linux drops what it could not write, and the next fdatasync succeeds without it.
    assert told == []
    assert len(failed) == THREADS
    assert "Input/output error" in str(failed[0])
    with pytest.raises(sqlite3.OperationalError, match="cannot be synced"):
        session.store.sync()


def test_nothing_is_synced_again_that_is_safe_already(session: Session, disk: Disk) -> None:
    session.accept()
    session.store.sync()
    session.store.sync()
    assert disk.syncs == 1


def test_a_transaction_inside_another_is_a_part_of_it(session: Session) -> None:
    def break_down() -> None:
        with session.store.transaction() as outer:
            session.store.remember(outer, "availability", "paused")
            with session.store.transaction() as inner:
                session.store.remember(inner, "reconciled", "7")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_down()
    assert session.store.recall("availability") is None
    assert session.store.recall("reconciled") is None


def test_who_is_to_be_told_of_a_commit_is_told_after_it_and_not_when_it_fails(session: Session) -> None:
    told: list[bool] = []
    connection = session.store._connection

    def commit(*, failing: bool) -> None:
        with session.store.transaction():
            session.store.after_commit(lambda: told.append(connection.in_transaction))
            if failing:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        commit(failing=True)
    assert told == []
    commit(failing=False)
    assert told == [False]


def test_a_closed_journal_says_so_instead_of_syncing_something_else(session: Session) -> None:
    session.accept()
    session.close()
    session.close()
    with pytest.raises(sqlite3.OperationalError, match="cannot be synced"):
        session.store.sync()


def test_the_file_counts_its_sessions_and_keeps_its_id(session: Session) -> None:
    first = session.journal.id
    later = session.next().next()
    assert later.journal.id == first
    assert later.store.recall("opened") == "2"
    later.close()
