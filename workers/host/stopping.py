"""Stopping: from the first signal to the end of the process.

A first SIGTERM: nothing new is taken, attached runs end, and what else runs may finish within the grace period. A
second one, or the end of that period, ends what still runs, with its processes, and leaves the journal so that the next
session goes on from there. The process always ends: a call that hangs cannot hold it.
"""

import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from fleet import logs
from workers.host.availability import Gate
from workers.host.running import EndRequest, Running, Why

log = logs.get(__name__)

#: How long processes that were told to end have for it; their supervisors kill them after three seconds.
_END_WITHIN = timedelta(seconds=5)
#: How long the rest of the process has to end by itself once nothing is in hand.
_EXIT_WITHIN = timedelta(seconds=5)
#: What a machine that is busy may take beyond all that.
_LATE = timedelta(seconds=30)


class Stopping:
    """Sees a session to its end, in a thread of its own."""

    def __init__(
        self,
        running: Running,
        gate: Gate,
        *,
        grace: timedelta,
        wake: Callable[[], None],
        take_leave: Callable[[], Any],
        on_begun: Callable[[], None] = lambda: None,
    ) -> None:
        self._running = running
        self._gate = gate
        self._grace = grace
        self._wake = wake
        self._take_leave = take_leave
        self._on_begun = on_begun
        self._begun = threading.Event()
        #: when it has to be over (monotonic), once it has begun
        self._due: float | None = None
        self._hurry = threading.Event()
        self._settled = threading.Event()
        self.over = threading.Event()

    def begin(self, *, grace: timedelta | None = None) -> None:
        """Stop; asked for a second time, stop at once."""
        if self._begun.is_set():
            self._hurry.set()
            return
        given = self._grace if grace is None else grace
        self._due = time.monotonic() + (given + _END_WITHIN + _EXIT_WITHIN).total_seconds()
        self._begun.set()
        self._gate.close()
        self._on_begun()
        arguments = (given,)
        threading.Thread(target=self._run, args=arguments, name="stopping", daemon=True).start()

    def begun(self) -> bool:
        return self._begun.is_set()

    def overdue_seconds(self) -> float:
        """Return for how long it should have been over; 0 where it need not be yet."""
        return 0.0 if self._due is None else max(0.0, time.monotonic() - self._due - _LATE.total_seconds())

    def finish(self) -> None:
        """Where a stop has begun, wait until what runs has finished or was ended.

        Celery waits for its pool alone, and what runs beside it would end with the process.
        """
        if self._begun.is_set():
            self._settled.wait()

    def _run(self, grace: timedelta) -> None:
        try:
            self._see_off(grace)
        finally:
            self._settled.set()
        if not self.over.wait(_EXIT_WITHIN.total_seconds()):
            # A thread is in a call of the Engine; its run is in the journal as begun.
            self._take_leave()
            os._exit(os.EX_OK)

    def _see_off(self, grace: timedelta) -> None:
        self._wake()
        self._running.end_attached(EndRequest(Why.STOPPED))
        if in_hand := len(self._running):
            log.info("worker.stopping", running=in_hand, grace_seconds=grace.total_seconds())
        if not self._wait(grace):
            log.warning("worker.hurried", running=len(self._running), next="what runs is ended; the next start goes on")
            self._running.end_all(EndRequest(Why.STOPPED))
            self._running.wait_empty(_END_WITHIN.total_seconds())

    def _wait(self, grace: timedelta) -> bool:
        """Wait for what runs; False where its time is over, or a second signal came."""
        left = grace.total_seconds()
        while left > 0 and not self._hurry.is_set():
            if self._running.wait_empty(min(left, 0.1)):
                return True
            left -= 0.1
        return not len(self._running)
