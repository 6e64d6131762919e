"""Signals: a supervisor's events (stop, a child ended) as something to wait for, in the main thread.

They are blocked and taken one by one (`sigtimedwait`), so no handler runs in the middle of anything and nobody sleeps
through one.
"""

import signal
import time
from types import TracebackType
from typing import Self

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def asking_to_stop() -> frozenset[signal.Signals]:
    """Return what asks this process to stop: started by `nohup`, it is to outlive its terminal."""
    return frozenset(number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN)


class Signals:
    """The signals of this process while the block lasts."""

    def __init__(self) -> None:
        self._stops = asking_to_stop()
        self._before: set[int | signal.Signals] = set()

    def __enter__(self) -> Self:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._stops, signal.SIGCHLD})
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        while self.wait(0) is not None:  # a second Ctrl-C during the stop must not surface now
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, seconds: float) -> signal.Signals | None:
        """Return the next signal, or None when the time is over."""
        taken = signal.sigtimedwait({*self._stops, signal.SIGCHLD}, max(seconds, 0))
        return signal.Signals(taken.si_signo) if taken else None

    def asks_to_stop(self, number: signal.Signals | None) -> bool:
        return number in self._stops

    def wait_for_child(self, until: float) -> bool:
        """Wait for a child to end or for `until` (monotonic); True where somebody asks to hurry up meanwhile."""
        return self.asks_to_stop(self.wait(until - time.monotonic()))
