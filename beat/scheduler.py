"""A Celery beat scheduler that runs its entries in place, in one thread, by the monotonic clock.

Stock beat sends a message per due entry. A heartbeat sent through the host's own queue starves while the pool is full,
and a broker outage blocks the sender; so here a due entry's task (a registered Celery task, found by its name) is
called at once, in the beat's own thread. Entries must bound their own waits: they share that thread.

An entry that raises is run again after its `retry` interval, and the failure is logged once until it works again.
"""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler, Service
from celery.schedules import schedule

from fleet import logs

log = logs.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a schedule table."""

    name: str
    #: name of a task that is registered with the app
    task: str
    interval: timedelta
    #: every wait is drawn from interval × (1 ± jitter), so that many hosts do not tick together
    jitter: float = 0.2
    #: the wait after a failure, instead of the interval
    retry: timedelta
    #: the reason for the interval, for whoever reads the table
    why: str

    def wait_seconds(self) -> float:
        """Draw the next wait."""
        return self.interval.total_seconds() * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - spreads load


class InPlaceScheduler(Scheduler):
    """Runs the entries of a table in the thread that ticks; every entry is due at once at the start."""

    def __init__(self, app: Celery, *, entries: Sequence[Entry], lazy: bool = False, **_: Any) -> None:
        self._entries = {entry.name: entry for entry in entries}
        #: when each entry is due, by the monotonic clock
        self._due = dict.fromkeys(self._entries, 0.0)
        self._failing: set[str] = set()
        self._woken = threading.Event()
        #: monotonic times: of the last tick, and of each entry's last success
        self._ticked_at: float | None = None
        self._worked_at: dict[str, float] = {}
        super().__init__(app, schedule={}, lazy=lazy)

    def setup_schedule(self) -> None:
        """Show the table as Celery's own entries, for whoever inspects the service."""
        self.schedule = {
            entry.name: ScheduleEntry(name=entry.name, task=entry.task, schedule=schedule(entry.interval), app=self.app)
            for entry in self._entries.values()
        }

    def tick(self, *_: Any, **__: Any) -> float:
        """Wait until an entry is due and run it, or until woken. Returns 0: there is nothing left to sleep."""
        self._ticked_at = time.monotonic()
        name = min(self._due, key=self._due.__getitem__)
        if self._woken.wait(max(0.0, self._due[name] - time.monotonic())):
            self._woken.clear()
            return 0
        entry = self._entries[name]
        self._due[name] = float("inf")  # so that a `hurry` while it runs is not lost
        wait = entry.wait_seconds() if self.run(entry) else entry.retry.total_seconds()
        self._due[name] = min(self._due[name], time.monotonic() + wait)
        return 0

    def age(self) -> float | None:
        """Return the seconds since the last tick; None before the first. Thread-safe, as the next."""
        return None if self._ticked_at is None else time.monotonic() - self._ticked_at

    def worked(self, name: str) -> float | None:
        """Return the seconds since an entry worked last; None where it never has, or there is none of that name."""
        at = self._worked_at.get(name)
        return None if at is None else time.monotonic() - at

    def hurry(self, name: str) -> None:
        """Make an entry due now. Thread-safe."""
        self._due[name] = 0.0
        self._woken.set()

    def wake(self) -> None:
        """End the wait, so that the service sees whether it is to stop. Thread-safe."""
        self._woken.set()

    def run(self, entry: Entry) -> bool:
        """Run one entry now; return whether it worked."""
        try:
            self.app.tasks[entry.task]()
        except Exception as exc:  # noqa: BLE001 - whatever an entry raises must not stop the others
            if entry.name not in self._failing:
                self._failing.add(entry.name)
                log.warning("beat.failed", entry=entry.name, error=str(exc), retry_seconds=entry.retry.total_seconds())
            return False
        self._worked_at[entry.name] = time.monotonic()
        if entry.name in self._failing:
            self._failing.discard(entry.name)
            log.info("beat.recovered", entry=entry.name)
        return True


class BeatThread:
    """A beat service with an in-place scheduler, in a thread of its own."""

    def __init__(self, app: Celery, entries: Sequence[Entry], *, name: str) -> None:
        missing = [entry.task for entry in entries if entry.task not in app.tasks]
        if missing:
            raise LookupError(f"beat entries without a registered task: {', '.join(missing)}")
        self.stopped = threading.Event()
        # The stubs are older than `remote_control`, and think of a class where any factory will do.
        service: Any = Service
        self._service = service(app, scheduler_cls=partial(InPlaceScheduler, entries=entries), remote_control=False)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        """Let the entry in hand end and stop; harmless when called twice or before the start."""
        self._service.stop()
        self._service.scheduler.wake()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())

    def hurry(self, name: str) -> None:
        """Run an entry now instead of when it is due."""
        self._service.scheduler.hurry(name)

    def age(self) -> float | None:
        """Return the seconds since it ticked last; None before the first tick.

        An idle beat ticks when its next entry is due, so this is as old as the shortest of their intervals.
        """
        found: float | None = self._service.scheduler.age()
        return found

    def worked(self, name: str) -> float | None:
        """Return the seconds since an entry worked last; None where it never has."""
        found: float | None = self._service.scheduler.worked(name)
        return found

    def _run(self) -> None:
        try:
            self._service.start()
        finally:
            self.stopped.set()
