"""Freezing a process: from one moment on it does nothing, until it goes on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.services.waiting import until


def freeze(pid: int) -> None:
    """Stop a process, and wait until it has: the signal goes to one of its threads, and the others work meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _states(pid) == {"T"}, f"process {pid} has stopped")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Keep a process frozen for as long as the block lasts."""
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    """Return the states of a process's threads, T for a stopped one (proc(5); the name before it may hold anything)."""
    states = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # it has ended
            states.add(path.read_text().rpartition(")")[2].split()[0])
    return states
