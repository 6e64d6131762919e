"""The inventory watch: what containers this host has, told within a second of every change.

The Engine's events say when to look, one list call says what there is, and a full look every minute makes good what an
event stream missed. While the Engine does not answer, nothing is told: the inventory then runs out and reads "unknown",
which is true, and never "none", which would be a lie.
"""

import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from fleet import logs
from fleet.contracts.containers import Container
from fleet.contracts.reports import Kind
from workers.host.containers import listing
from workers.host.containers.engine import Engine
from workers.host.containers.events import EventStream

log = logs.get(__name__)

#: Events of one change come in bursts (die, stop, start …); one look after the burst is enough.
_SETTLE = timedelta(milliseconds=150)
#: The first look waits for the event stream at most so long: what is looked up before it stands is asked twice.
_FIRST_LOOK = timedelta(seconds=1)
_RETRY_FIRST = timedelta(milliseconds=250)
_RETRY_LONGEST = timedelta(seconds=5)
#: Hosts that were started together do not look together.
_JITTER = 0.1
#: What can be away, and what follows from it.
_TROUBLES = {
    "engine.lost": "containers are unknown until it answers again",
    "reports.lost": "changes are told at the next look",
    "order.lost": "secrets of containers are put in order at the next look",
    "publishing.lost": "the inventory is written again when the broker is back",
}

Publish = Callable[[tuple[Container, ...]], None]
Tell = Callable[[Kind, dict[str, Any]], None]


class InventoryWatch:
    """Two threads: one hears the Engine's events, one looks and tells."""

    def __init__(
        self,
        engine: Engine,
        *,
        publish: Publish,
        report: Tell,
        interval: timedelta,
        on_found: Publish = lambda _found: None,
    ) -> None:
        """`publish` writes the whole inventory where everybody reads it, `report` tells the control plane, and
        `on_found` puts in order what depends on it here."""
        self._engine = engine
        self._publish = publish
        self._report = report
        self._on_found = on_found
        self._interval = interval
        self._look = threading.Event()
        self._stopping = threading.Event()
        self._stream: EventStream | None = None
        #: what the control plane was told last; None before the first report of this session
        self._told: dict[str, Container] | None = None
        #: what fails at present, each logged once an outage
        self._failing: set[str] = set()
        self.stopped = threading.Event()
        self._looker = threading.Thread(target=self._watch, name="inventory", daemon=True)
        self._hearer = threading.Thread(target=self._hear, name="docker-events", daemon=True)

    @property
    def docker_reachable(self) -> bool | None:
        """Whether the Engine answered last, whoever asked; None while that is not known."""
        return self._engine.reachable

    @property
    def docker_age(self) -> float | None:
        """Seconds since the Engine answered last; None before the first answer."""
        at = self._engine.answered_at
        return None if at is None else round(time.monotonic() - at, 3)

    def start(self) -> None:
        self._hearer.start()
        self._looker.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        """End both threads; harmless when called twice or before the start."""
        self._stopping.set()
        self._look.set()
        if stream := self._stream:
            stream.close()
        for thread in (self._looker, self._hearer):
            if thread.is_alive():
                thread.join(timeout.total_seconds())
        if not self._looker.is_alive():
            self.stopped.set()

    def sync_now(self) -> None:
        """Look now instead of at the next event or interval."""
        self._look.set()

    def _watch(self) -> None:
        wait = _FIRST_LOOK
        while not self._stopping.is_set():
            if self._look.wait(wait.total_seconds()):
                self._stopping.wait(_SETTLE.total_seconds())
                self._look.clear()
            if self._stopping.is_set():
                break
            complete = self._sync()
            wait = self._interval if complete else min(self._interval, _RETRY_LONGEST)
            wait *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load
        self.stopped.set()

    def _sync(self) -> bool:
        """Look once, and tell what there is and what has changed; return whether all of it worked."""
        found: list[tuple[Container, ...]] = []
        if not self._try("engine.lost", lambda: found.append(listing.everything(self._engine))):
            return False
        reported = self._try("reports.lost", lambda: self._tell({c.docker_id: c for c in found[0]}))
        published = self._try("publishing.lost", lambda: self._publish(found[0]))
        return self._try("order.lost", lambda: self._on_found(found[0])) and reported and published

    def _try(self, trouble: str, act: Callable[[], None]) -> bool:
        """Act; a failure is logged once an outage, and never ends the thread that looks again."""
        try:
            act()
        except Exception as exc:  # noqa: BLE001 - Engine, broker or disk: whatever is away, the watch goes on
            if trouble not in self._failing:
                self._failing.add(trouble)
                log.warning(trouble, error=str(exc), next=_TROUBLES[trouble])
            return False
        if trouble in self._failing:
            self._failing.discard(trouble)
            log.info(trouble.replace("lost", "regained"))
        return True

    def _tell(self, found: dict[str, Container]) -> None:
        """Report everything once a session, then only what has changed."""
        told = self._told
        if told is None:
            self._report(Kind.INVENTORY_SYNCED, {"containers": [c.model_dump(mode="json") for c in found.values()]})
        else:
            changed = [
                c for docker_id, c in found.items() if _without_status(told.get(docker_id)) != _without_status(c)
            ]
            removed = [docker_id for docker_id in told if docker_id not in found]
            if changed or removed:
                self._report(
                    Kind.INVENTORY_CHANGED,
                    {"changed": [c.model_dump(mode="json") for c in changed], "removed": removed},
                )
        self._told = found

    def _hear(self) -> None:
        """Follow the Engine's events, again and again."""
        wait = _RETRY_FIRST
        while not self._stopping.is_set():
            opened = time.monotonic()
            try:
                self._listen()
            except Exception as exc:  # noqa: BLE001 - whatever ends a stream, the next one is opened
                log.debug("events.broken", error=repr(exc))  # the looker warns, once an outage
            self._look.set()  # a stream that ends is a reason to look
            if time.monotonic() - opened > _RETRY_LONGEST.total_seconds():
                wait = _RETRY_FIRST
            self._stopping.wait(wait.total_seconds())
            wait = min(wait * 2, _RETRY_LONGEST)

    def _listen(self) -> None:
        """Open one stream, and look at whatever it says until it ends."""
        self._stream = stream = self._engine.events()
        try:
            if self._stopping.is_set():  # `stop` came before it could see the stream
                return
            self._look.set()
            for _event in stream:
                self._look.set()
        finally:
            stream.close()


def _without_status(container: Container | None) -> Container | None:
    """Leave out the sentence for people: "Up 3 minutes" changes by itself, and says nothing that `started` does not."""
    return container and container.model_copy(update={"status": ""})
