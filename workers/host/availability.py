"""Availability: whether this worker takes new work, as the fleet's admins decided; a restart does not change it."""

import threading

from fleet import logs
from fleet.clock import BrokerClock
from fleet.contracts.control import CancelRun, SetAvailability
from fleet.contracts.hosts import Availability
from fleet.contracts.reports import Kind
from workers.host.deadlines import Deadlines
from workers.host.outbox import Outbox
from workers.host.running import EndRequest, Running, Why
from workers.host.store import Store

log = logs.get(__name__)

_KEY = "availability"
#: when what is obeyed was decided: an earlier word that comes again, or late, changes nothing
_DECIDED = "availability_decided_at"


class Gate:
    """Open while work is taken: the host is active, and this session neither stops nor is superseded."""

    def __init__(
        self, store: Store, outbox: Outbox, running: Running, deadlines: Deadlines, *, clock: BrokerClock
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._running = running
        self._deadlines = deadlines
        self._clock = clock
        self._closed = threading.Event()
        self._deadline: int | None = None
        self.availability = Availability(store.recall(_KEY) or Availability.ACTIVE)

    def is_open(self) -> bool:
        return self.availability is Availability.ACTIVE and not self._closed.is_set()

    def close(self) -> None:
        """Take nothing any more, whatever the availability: this session ends."""
        self._closed.set()

    def set(self, wish: SetAvailability) -> None:
        """Obey a change, and report it; the same one again changes nothing but the deadline."""
        if wish.decided_at < float(self._store.recall(_DECIDED) or 0.0):
            log.info("availability.outdated", availability=wish.availability.value)
            return
        changes = wish.availability is not self.availability
        with self._store.transaction(durable=True) as transaction:
            # also where nothing changes: an older word that comes only now does not count after this one
            self._store.remember(transaction, _DECIDED, repr(wish.decided_at))
            if changes:
                self._store.remember(transaction, _KEY, wish.availability)
                data = {"availability": wish.availability.value, "by": wish.by}
                self._outbox.add(transaction, Kind.HOST_AVAILABILITY_CHANGED, data=data)
        if changes:
            self.availability = wish.availability
            log.info("availability.changed", availability=wish.availability.value, principal=wish.by)
        if self._deadline is not None:
            self._deadlines.clear(self._deadline)
            self._deadline = None
        if wish.deadline is not None:
            left = max(0.0, wish.deadline - self._clock.now())
            self._deadline = self._deadlines.set(left, lambda: self._end_all(wish))

    def _end_all(self, wish: SetAvailability) -> None:
        for run_id in self._running.ids():
            cancel = CancelRun(run=run_id, by=wish.by, reason="the time to drain was over")
            self._running.end(run_id, EndRequest(Why.CANCELLED, cancel))
