"""Allowance: how much is written down of what others cause: so many at once, and so many a second for long."""

import threading
import time


class Allowance:
    """What may be done now. Thread-safe."""

    def __init__(self, *, at_once: float, a_second: float) -> None:
        self._at_once = at_once
        self._a_second = a_second
        self._lock = threading.Lock()
        #: how many may be done now, and when that was reckoned
        self._left, self._reckoned_at = at_once, time.monotonic()

    def take(self) -> bool:
        """Take one; False where none is left."""
        with self._lock:
            now = time.monotonic()
            self._left = min(self._at_once, self._left + (now - self._reckoned_at) * self._a_second)
            self._reckoned_at = now
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
