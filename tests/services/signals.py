"""Signals reach the processes that run the tests, and those that these start, as they reach Fleet's.

`fleet.local.signals` blocks signals in the main thread and takes them one by one; threads that are started later
inherit that. A process of pytest-xdist has a thread from its very beginning, which would take them instead: SIGCHLD to
no effect, and SIGTERM with the end of the process. It inherits the mask of the process that starts it.
"""

import signal
from collections.abc import Iterator

import pytest

_TAKEN = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}

signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script that starts us in the background has us ignore it, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Started by `nohup`, we go on when the terminal has gone; what a test starts inherits no handler, and minds it.
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart() -> Iterator[None]:
    """Have the processes of pytest-xdist, which are started now, begin with these signals blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
