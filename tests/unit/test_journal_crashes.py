"""The journal after a kill -9 at every moment of a run's life, and after power loss at every length of its log."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet import errors
from fleet.contracts.reports import Kind, Report
from tests.services.scripted_life import LIVES, OTHER, RUN
from tests.services.sessions import Session, raw

FINAL = {Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED}
#: With these reports one attempt ends and they name the one that follows.
FOLLOWED = {Kind.RUN_RETRYING, Kind.RUN_HANDED_BACK}

Attempt = tuple[str, int]


@dataclass
class Found:
    """What lies in a journal file."""

    #: state and outcome of each attempt
    attempts: dict[Attempt, tuple[str, str | None]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    #: number → report, and whether a result goes with it, and whether it is marked as sent
    reports: dict[int, tuple[Report, bool, bool]] = field(default_factory=dict)
    newest: int = 0

    @classmethod
    def read(cls, path: Path) -> "Found":
        found = cls()
        with raw(path) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            rows = connection.execute("SELECT run_id, attempt, state, outcome FROM journal")
            found.attempts = {(run_id, attempt): (state, outcome) for run_id, attempt, state, outcome in rows}
            found.cancelled = {run_id for (run_id,) in connection.execute("SELECT run_id FROM cancelled")}
            for seq, report, result, sent in connection.execute(
                "SELECT seq, report, result IS NOT NULL, sent FROM outbox WHERE epoch = 1"
            ):
                found.reports[seq] = (Report.model_validate_json(report), bool(result), bool(sent))
            found.newest = int(connection.execute("SELECT value FROM meta WHERE key = 'seq'").fetchone()[0])
        return found

    def told(self, kind: Kind, run_id: str, attempt: int) -> bool:
        return any(
            (report.kind, report.run, report.attempt) == (kind, run_id, attempt)
            for report, _result, _sent in self.reports.values()
        )

    def is_whole(self) -> None:
        """Check that reports have no gap, and that state, report and result are there together or not at all."""
        first = min(self.reports, default=self.newest + 1)
        assert sorted(self.reports) == list(range(first, self.newest + 1))
        if first > 1:  # some were recorded by the control plane, and let go
            return
        expected: Counter[tuple[Kind, str, int]] = Counter()
        for (run_id, attempt), (state, outcome) in self.attempts.items():
            before = self.attempts.get((run_id, attempt - 1), ("", None))[1]
            kind = Kind(outcome) if outcome else None
            never_taken = kind is Kind.RUN_CANCELLED and not self.told(Kind.RUN_ACCEPTED, run_id, attempt)
            if before != Kind.RUN_RETRYING and not never_taken:
                expected[Kind.RUN_ACCEPTED, run_id, attempt] += 1
            if state == "started" or (kind and kind is not Kind.RUN_CANCELLED):
                expected[Kind.RUN_STARTED, run_id, attempt] += 1
            if kind:
                expected[kind, run_id, attempt + (kind in FOLLOWED)] += 1
        reported = Counter(
            (report.kind, str(report.run), report.attempt or 0)
            for report, _result, _sent in self.reports.values()
            if report.kind is not Kind.RUN_PROGRESSED
        )
        assert reported == expected
        for report, result, _sent in self.reports.values():
            assert result is (report.kind in FINAL)

    def keeps(self, said: list[str]) -> None:
        """Check that everything is there that was said to be done."""
        counts = Counter(line.split()[0] for line in said)
        states = [state for state, _outcome in self.attempts.values()]
        assert len(states) >= counts["accepted"]
        assert len(states) - states.count("accepted") >= counts["claimed"]
        if "ended" in said:
            assert "accepted" not in states
            assert "started" not in states
        if "handed" in counts:
            assert self.attempts[RUN, 1] == ("finished", Kind.RUN_HANDED_BACK)
        if "cancelled" in said:
            assert RUN in self.cancelled
        for line in said:
            match line.split():
                case ["effect", attempt]:
                    assert self.attempts[RUN, int(attempt)][0] != "accepted"
                case ["sent", count]:
                    assert all(sent for seq, (_report, _result, sent) in self.reports.items() if seq <= int(count))
                case ["acknowledged", count]:
                    assert all(seq > int(count) for seq in self.reports)


def goes_on(path: Path, said: list[str]) -> None:
    """Open the journal as the next session does, and check that nothing begins twice and that it can be worked with."""
    effects = {(RUN, int(line.split()[1])) for line in said if line.startswith("effect")}
    session = Session(path, epoch=2)
    try:
        assert all((out.epoch, out.seq) == (1, out.seq) for out in session.outbox.unsent())
        for claim in session.journal.interrupted():
            if not session.journal.unclaim(claim.run_id):
                session.endings.lose_track(claim, message="the worker was killed")
        for run_id in (RUN, OTHER):
            session.offer(run_id)
            claimed = session.journal.claim(run_id, durable=True)
            if claimed is not None:
                assert (run_id, claimed.attempt) not in effects
                assert run_id != RUN or "cancelled" not in said
                session.endings.succeed(claimed, reply={}, duration_seconds=0.1)
        assert session.journal.unfinished(10) == []
        newest = [out.seq for out in session.outbox.unsent() if out.epoch == 2]
        assert newest == list(range(1, len(newest) + 1))
    finally:
        session.close()


@pytest.mark.parametrize("life", LIVES)
def test_after_a_kill_at_any_moment_the_journal_is_whole_and_keeps_what_was_done(life: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.services.scripted_life", life, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    deaths: Counter[int] = Counter()
    for line in done.stdout.splitlines():
        name, status = line.split()
        deaths[int(status)] += 1
        path = tmp_path / name / "journal.db"
        said = (tmp_path / name / "said").read_text().splitlines()
        found = Found.read(path)
        found.is_whole()
        found.keeps(said)
        goes_on(path, said)
    # Each way to die comes to the end of the life once; before, it killed at every moment.
    assert deaths[0] == 2
    assert deaths[-signal.SIGKILL] >= 20
    assert deaths[-signal.SIGXFSZ] >= 20
    assert set(deaths) == {0, -signal.SIGKILL, -signal.SIGXFSZ}


class Disk:
    """Knows how much of the log is safe."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self.session = session
        self.log = Path(f"{session.path}-wal")
        self.safe = self.log.stat().st_size  # the first commits are synced by SQLite itself
        #: size of the log that was safe when something durable was said to be done, and everything said till then
        self.promises: list[tuple[int, list[str]]] = []
        self.said: list[str] = []
        real = os.fdatasync

        def fdatasync(descriptor: int) -> None:
            real(descriptor)
            self.safe = self.log.stat().st_size

        monkeypatch.setattr(os, "fdatasync", fdatasync)

    def say(self, done: str) -> None:
        self.said.append(done)
        if self.session.store._synced >= self.session.store._committed:
            self.promises.append((self.safe, list(self.said)))


@pytest.mark.parametrize("life", LIVES)
def test_after_power_loss_the_journal_is_whole_and_keeps_what_was_promised(
    life: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.store.sync()
    disk = Disk(session, monkeypatch)
    begun_at = disk.safe
    LIVES[life](session, disk.say)
    assert bool(disk.promises) is (life in {"goes_well", "fails_twice", "is_cancelled"})
    log, file = disk.log.read_bytes(), session.path.read_bytes()

    def keeps(name: str, rest: bytes, promised_up_to: int) -> None:
        path = tmp_path / name / "journal.db"
        path.parent.mkdir()
        path.write_bytes(file)
        Path(f"{path}-wal").write_bytes(rest)
        found = Found.read(path)
        found.is_whole()
        kept = [said for safe, said in disk.promises if safe <= promised_up_to]
        for said in kept:
            found.keeps(said)
        goes_on(path, kept[-1] if kept else [])
        shutil.rmtree(path.parent)

    for length in range(begun_at, len(log) + 1, 1500):
        keeps(f"cut-{length}", log[:length], length)
    # Blocks reach the disk in any order: one that is missing makes everything after it worth nothing, and no more.
    for start in range(begun_at, len(log), 4096):
        holed = log[:start] + bytes(512) + log[start + 512 :]
        keeps(f"hole-{start}", holed[: len(log)], start)


def test_a_durable_claim_survives_power_loss_and_an_acceptance_alone_may_not(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.store.sync()
    disk = Disk(session, monkeypatch)
    claimed = session.accept()
    assert session.journal.claim(claimed, durable=True)
    accepted = session.accept()
    path = tmp_path / "after.db"
    shutil.copy(session.path, path)
    Path(f"{path}-wal").write_bytes(disk.log.read_bytes()[: disk.safe])
    assert Found.read(path).attempts == {(claimed, 1): ("started", None)}
    assert (accepted, 1) not in Found.read(path).attempts


def test_a_journal_whose_log_is_damaged_in_the_middle_ends_before_it(session: Session, tmp_path: Path) -> None:
    before = session.accept()
    size = Path(f"{session.path}-wal").stat().st_size
    after = session.accept()
    path = tmp_path / "after.db"
    shutil.copy(session.path, path)
    log = bytearray(Path(f"{session.path}-wal").read_bytes())
    log[size + 100] ^= 0xFF
    Path(f"{path}-wal").write_bytes(log)
    found = Found.read(path)
    assert (before, 1) in found.attempts
    assert (after, 1) not in found.attempts


def test_a_journal_that_is_damaged_in_its_file_is_refused(session: Session) -> None:
    for _ in range(50):
        session.accept()
    path = session.path
    session.close()  # the log is in the file now
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * 4096)
    with pytest.raises(errors.LocalFault, match="damaged"):
        Session(path, epoch=2)
