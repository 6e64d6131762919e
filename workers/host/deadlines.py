"""Deadlines: a thread that calls back when a run's time is over. It depends on nothing but the monotonic clock."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from fleet import logs

log = logs.get(__name__)


class Deadlines:
    """Callbacks at their time, one after the other; each should return soon."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._off: set[int] = set()
        self._stopping = False
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())
        else:
            self.stopped.set()

    def set(self, seconds: float, callback: Callable[[], object]) -> int:
        """Have `callback` called in so many seconds; return a number for `clear`."""
        number = next(self._numbers)
        due_at = time.monotonic() + seconds
        with self._changed:
            heapq.heappush(self._queue, (due_at, number, callback))
            if self._queue[0][1] == number:
                self._changed.notify()
        return number

    def clear(self, number: int) -> None:
        """Call a deadline off; one that has passed is none any more."""
        with self._changed:
            self._off.add(number)
            while self._queue and self._queue[0][1] in self._off:
                self._off.discard(heapq.heappop(self._queue)[1])
            if len(self._off) > 1_000:  # long limits of short tasks
                self._queue = [entry for entry in self._queue if entry[1] not in self._off]
                heapq.heapify(self._queue)
                self._off.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and (not self._queue or self._queue[0][0] > time.monotonic()):
                    self._changed.wait(self._queue[0][0] - time.monotonic() if self._queue else None)
                if self._stopping:
                    break
                _due_at, number, callback = heapq.heappop(self._queue)
                if number in self._off:
                    self._off.discard(number)
                    continue
            try:
                callback()
            except Exception:  # one run's ending must not cost the others their deadlines
                log.exception("deadline.failed")
        self.stopped.set()
