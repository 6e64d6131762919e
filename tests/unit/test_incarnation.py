"""Incarnations: which process is meant, whoever has its number; and logs that stay bounded."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.local import pidfile
from fleet.local.daemon import State, look
from fleet.local.incarnation import Incarnation, is_locked
from fleet.local.output import Bounded, Output
from tests.services.waiting import until

#: Holds the lock of a file until its input ends.
_HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the worker's lock in `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / pidfile.LOCK)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def mine() -> Incarnation:
    found = Incarnation.of(os.getpid())
    assert found is not None
    return found


def test_a_process_is_itself_and_no_other_of_its_number() -> None:
    assert mine().is_alive()
    assert not Incarnation(pid=os.getpid(), ticks=mine().ticks + 1, boot=mine().boot).is_alive()
    assert not Incarnation(pid=os.getpid(), ticks=mine().ticks, boot="another").is_alive()
    assert 0 < mine().uptime_seconds() < 86400


def test_one_that_has_ended_is_nobody_also_while_its_parent_has_not_asked() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Incarnation.of(process.pid) is None
    process.wait()
    assert Incarnation.of(process.pid) is None


def test_one_lives_while_any_of_its_threads_does_and_holds_what_it_has_locked(tmp_path: Path) -> None:
    program = """
import ctypes, fcntl, sys, threading
file = open(sys.argv[1], "wb")
fcntl.flock(file, fcntl.LOCK_EX)
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    lock = tmp_path / pidfile.LOCK
    with subprocess.Popen([sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE) as process:
        until(lambda: "Z" in Path(f"/proc/{process.pid}/stat").read_text().split()[2], "its first thread has ended")
        assert is_locked(lock)
        assert Incarnation.of(process.pid) is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Incarnation.of(process.pid) is None
        assert not is_locked(lock)


def test_a_signal_reaches_the_very_process_or_nobody(holder: "subprocess.Popen[str]") -> None:
    found = Incarnation.of(holder.pid)
    assert found is not None
    with Incarnation(pid=holder.pid, ticks=found.ticks - 1, boot=found.boot).held() as handle:
        assert handle is None
    with found.held() as handle:
        assert handle is not None
        assert not handle.ends_within(0)
        handle.send(signal.SIGKILL)
        assert handle.ends_within(10)
        handle.send(signal.SIGKILL)  # nobody
    holder.wait()
    with found.held() as handle:
        assert handle is None


def test_who_holds_a_lock_is_read_off_the_process(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    lock = tmp_path / pidfile.LOCK
    found = Incarnation.of(holder.pid)
    assert found is not None
    assert found.holds(lock)
    assert not found.holds(tmp_path / "another")
    assert is_locked(lock)
    with lock.open() as file:  # open, and not held
        assert not mine().holds(lock)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert not is_locked(tmp_path / "another")


def test_a_lock_whose_holder_nobody_can_name_is_held_all_the_same(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    (tmp_path / pidfile.LOCK).write_text("999999999")  # as of a container
    seen = look(tmp_path)
    assert (seen.state, seen.process, seen.is_ours) == (State.RUNNING, None, False)
    pidfile.write(tmp_path / pidfile.PID_FILE, pidfile.Record(process=mine(), version="1", stop_grace_seconds=30))
    assert not look(tmp_path).is_ours  # it lives, and is not who holds the lock
    holder.communicate("")
    assert look(tmp_path).state is State.STALE


@pytest.mark.parametrize("text", ["", "12", "12\n{}\n", "12\n[]\n", "x\n\0", '1\n{"process": {"pid": "x"}}\n'])
def test_a_pid_file_that_cannot_be_read_is_a_stale_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / pidfile.PID_FILE
    file.write_text(text)
    assert pidfile.read(file) is None
    assert look(tmp_path).state is State.STALE
    pidfile.remove(file, process=None)
    assert look(tmp_path).state is State.STOPPED


def test_a_pid_file_is_removed_only_by_whom_it_names(tmp_path: Path) -> None:
    file = tmp_path / pidfile.PID_FILE
    record = pidfile.Record(process=mine(), version="1", stop_grace_seconds=30)
    pidfile.write(file, record)
    assert pidfile.read(file) == record
    assert file.read_text().splitlines()[0] == str(os.getpid())
    pidfile.remove(file, process=Incarnation(pid=1, ticks=1, boot="x"))
    pidfile.remove(file, process=None)
    assert pidfile.read(file) == record
    pidfile.remove(file, process=mine())
    assert not file.exists()


def test_a_log_without_a_supervisor_stays_bounded_and_keeps_what_was_said_last(tmp_path: Path) -> None:
    output = Output(tmp_path / "x.log", limit_bytes=1000)
    with output.path.open("ab") as file:
        stream = Bounded(file.fileno(), output)
        for number in range(1000):
            stream.write(f"line {number:04} \ud800\n")
            stream.flush()
    before = (tmp_path / "x.log.1").read_text()
    assert len(before) + output.size() < 2100
    kept = [line.split()[1] for line in (before + output.path.read_text()).splitlines()]
    assert kept == [f"{number:04}" for number in range(1000 - len(kept), 1000)]
    assert output.last_lines(2) == ["line 0998 \\ud800", "line 0999 \\ud800"]


def test_a_log_whose_past_cannot_be_kept_lets_go_of_it(tmp_path: Path) -> None:
    output = Output(tmp_path / "x.log", limit_bytes=1000)
    (tmp_path / "x.log.1").mkdir()  # no copy can be made
    with output.path.open("ab") as file:
        stream = Bounded(file.fileno(), output)
        for _ in range(100):
            stream.write("x" * 99 + "\n")
            stream.flush()
    assert output.size() <= 1000
