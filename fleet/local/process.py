"""Processes: the one place of the library that starts any, and what they can count on.

A child lives in a session of its own, so a Ctrl-C at the terminal is the supervisor's to pass on. It dies with its
parent, even by kill -9 (PR_SET_PDEATHSIG), unless it is detached. Its output goes to a file, its input is empty.
Linux only: nothing else can promise the second point.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from fleet import errors

#: linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Process:
    """One started child."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    def ended(self) -> str | None:
        """Return how it ended, in words, or None while it runs."""
        code = self._popen.poll()
        if code is None:
            return None
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def ends_within(self, seconds: float) -> str | None:
        """Wait for its end, and return how it ended; None where it goes on."""
        try:
            self._popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        return self.ended()

    def terminate(self) -> None:
        """Ask it to end. Nothing happens where it has ended."""
        self._popen.terminate()

    def kill(self) -> None:
        """End it and everything that stayed in its process group. Nothing happens where nobody is left."""
        try:
            os.killpg(self._popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        try:
            self._popen.wait(timeout=0.5)
        except subprocess.TimeoutExpired:  # in an uninterruptible call; it ends when that returns
            return


def spawn(argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, output: Path) -> Process:
    """Start a child with exactly this environment; its output is appended to the file `output`.

    Must be called in the main thread: the kernel sends PDEATHSIG when the *thread* ends that started the child.
    Raises `errors.LocalFault` where it cannot be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started in the main thread only")
    libc = _libc()
    parent = os.getpid()

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.getppid() != parent:  # it died before prctl took effect
            os._exit(1)

    try:
        with output.open("ab") as log:
            popen = _started(argv, environment=environment, directory=directory, log=log, before_exec=before_exec)
    except OSError as exc:
        raise errors.LocalFault(f"cannot start {argv[0]}: {exc}", remedy=f"its log is {output}") from exc
    return Process(popen)


def detach(argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, output: Path, keep: int) -> Process:
    """Start a process that outlives this one; its output is appended to the file `output`.

    `keep` is a descriptor that it inherits. Raises `errors.LocalFault` where it cannot be started.
    """
    if not directory.is_dir():
        raise errors.LocalFault(f"cannot start in {directory}: no such directory", remedy="start it in another")
    try:
        log = output.open("ab")
    except OSError as exc:
        raise errors.LocalFault(f"log {output}: cannot be written ({exc.strerror})", remedy="permit it") from exc
    try:
        with log:
            popen = _started(argv, environment=environment, directory=directory, log=log, keep=(keep,))
    except OSError as exc:
        raise errors.LocalFault(f"cannot start {argv[0]}: {exc}", remedy="is the machine out of memory?") from exc
    return Process(popen)


def _started(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: IO[bytes],
    before_exec: Callable[[], None] | None = None,
    keep: tuple[int, ...] = (),
) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, which writes into a file for its owner's eyes; raises OSError."""
    os.fchmod(log.fileno(), 0o600)
    return subprocess.Popen(  # noqa: S603 - an argument list, no shell
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=dict(environment),
        start_new_session=True,
        preexec_fn=before_exec,  # noqa: PLW1509 - safe: whoever gives one has one thread
        pass_fds=keep,
    )


class Descendants:
    """Everything that descends from this process from now on, whatever session it flees to.

    A descendant whose own parent ends becomes a child of this process (subreaper), so none escapes. Children that were
    there before are somebody else's.
    """

    def __init__(self) -> None:
        self._strangers = set(psutil.Process().children())
        _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def bury(self, known: set[int]) -> None:
        """Take the exit status of adopted children that have ended, so that no zombie is left; not of `known` ones."""
        for child in self._children():
            if child.pid not in known:
                try:
                    os.waitpid(child.pid, os.WNOHANG)
                except ChildProcessError:
                    continue

    def kill(self, *, within_seconds: float) -> list[int]:
        """Kill them all and adopt no more; return the pids of those that are still there after the time."""
        deadline = time.monotonic() + within_seconds
        left = self._everybody()
        # Again and again: whoever was forking at that moment has a child now.
        while left and time.monotonic() < deadline:
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, timeout=0.05)
            left = self._everybody()
        _libc().prctl(_PR_SET_CHILD_SUBREAPER, 0)
        return [process.pid for process in left]

    def _children(self) -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if child not in self._strangers]

    def _everybody(self) -> list[psutil.Process]:
        found = []
        for child in self._children():
            try:
                found += [child, *child.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found


def _libc() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise errors.LocalFault(
            "`fleet up` runs on Linux only",
            remedy="start the pieces: a broker, `fleet control`, `fleet flower`, `fleet worker`",
        )
    return ctypes.CDLL(None, use_errno=True)
