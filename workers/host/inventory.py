"""The inventory watch: what containers this host has, told within a second of every change.

The Engine's events say when to look, one list call says what there is, and a full look every minute makes good what an
event stream missed. While the Engine does not answer, nothing is told: the inventory then runs out and reads "unknown",
which is true, and never "none", which would be a lie.
"""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import redis

from fleet import errors, logs
from fleet.contracts.containers import Container
from fleet.contracts.reports import Kind
from workers.host.containers import from_summary, started_at
from workers.host.engine import Engine, EventStream

log = logs.get(__name__)

#: Events of one change come in bursts (die, stop, start …); one look after the burst is enough.
_SETTLE = timedelta(milliseconds=150)
_RETRY_FIRST = timedelta(milliseconds=250)
_RETRY_LONGEST = timedelta(seconds=5)
#: Actions that change nothing that is listed; a health check alone makes three of them every few seconds.
_IRRELEVANT = (
    "exec_",
    "top",
    "attach",
    "detach",
    "resize",
    "copy",
    "export",
    "archive-path",
    "extract-to-dir",
    "commit",
)

Publish = Callable[[tuple[Container, ...]], None]
Tell = Callable[[Kind, dict[str, Any]], None]


class InventoryWatch:
    """Two threads: one hears the Engine's events, one looks and tells."""

    def __init__(self, engine: Engine, *, publish: Publish, report: Tell, interval: timedelta) -> None:
        """`publish` writes the whole inventory where everybody reads it, `report` tells the control plane."""
        self._engine = engine
        self._publish = publish
        self._report = report
        self._interval = interval.total_seconds()
        self._look = threading.Event()
        self._stopping = threading.Event()
        self._stream: EventStream | None = None
        self._started: dict[str, datetime | None] = {}
        #: what the control plane was told last; None before the first report of this session
        self._told: dict[str, Container] | None = None
        self._unpublished = False
        #: whether the Engine answered last; None before the first look
        self.docker_reachable: bool | None = None
        self.stopped = threading.Event()
        self._looker = threading.Thread(target=self._watch, name="inventory", daemon=True)
        self._hearer = threading.Thread(target=self._hear, name="docker-events", daemon=True)

    def start(self) -> None:
        self._looker.start()
        self._hearer.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        """End both threads; harmless when called twice or before the start."""
        self._stopping.set()
        self._look.set()
        if stream := self._stream:
            stream.close()
        for thread in (self._looker, self._hearer):
            if thread.is_alive():
                thread.join(timeout.total_seconds())

    def sync_now(self) -> None:
        """Look now instead of at the next event or interval."""
        self._look.set()

    def _watch(self) -> None:
        next_full = time.monotonic()
        while not self._stopping.is_set():
            changed = self._look.wait(max(0.0, next_full - time.monotonic()))
            if changed and not self._stopping.wait(_SETTLE.total_seconds()):
                self._look.clear()
            if self._stopping.is_set():
                break
            self._sync()
            next_full = time.monotonic() + self._interval
        self.stopped.set()

    def _sync(self) -> None:
        """Look once, and tell what there is and what has changed."""
        try:
            containers = self._list()
        except errors.FleetError as exc:
            if self.docker_reachable is not False:
                log.warning("engine.lost", error=str(exc), next="containers are unknown until it answers again")
            self.docker_reachable = False
            return
        if self.docker_reachable is False:
            log.info("engine.regained")
        self.docker_reachable = True
        self._tell(containers)
        try:
            self._publish(tuple(containers.values()))
            self._unpublished = False
        except redis.RedisError as exc:
            if not self._unpublished:
                log.warning("inventory.unpublished", error=str(exc), next="written again when the broker is back")
            self._unpublished = True

    def _list(self) -> dict[str, Container]:
        summaries = self._engine.list_containers()
        listed = {summary["Id"] for summary in summaries}
        self._started = {docker_id: at for docker_id, at in self._started.items() if docker_id in listed}
        return {s["Id"]: from_summary(s, started=self._started_at(s)) for s in summaries}

    def _started_at(self, summary: Mapping[str, Any]) -> datetime | None:
        """Return when a container was started, asking the Engine once a start: its list does not say."""
        docker_id = summary["Id"]
        if summary.get("State") == "created":
            return None
        if docker_id not in self._started:
            try:
                self._started[docker_id] = started_at(self._engine.inspect(docker_id))
            except errors.EngineRefused:
                return None  # removed in between; the next look will not list it
        return self._started[docker_id]

    def _tell(self, containers: dict[str, Container]) -> None:
        """Report everything once a session, then only what has changed."""
        told = self._told
        if told is None:
            self._report(
                Kind.INVENTORY_SYNCED, {"containers": [c.model_dump(mode="json") for c in containers.values()]}
            )
        else:
            changed = [
                c for docker_id, c in containers.items() if _without_status(told.get(docker_id)) != _without_status(c)
            ]
            removed = [docker_id for docker_id in told if docker_id not in containers]
            if changed or removed:
                self._report(
                    Kind.INVENTORY_CHANGED,
                    {"changed": [c.model_dump(mode="json") for c in changed], "removed": removed},
                )
        self._told = containers

    def _hear(self) -> None:
        """Follow the Engine's events, again and again."""
        wait = _RETRY_FIRST
        while not self._stopping.is_set():
            try:
                self._stream = self._engine.events()
                self._started.clear()  # what happened while nobody listened is not known
                self._look.set()
                wait = _RETRY_FIRST
                for event in self._stream:
                    self._heed(event)
            except errors.FleetError:
                pass  # the looker says so, once an outage
            except Exception as exc:  # noqa: BLE001 - whatever ends a stream, the next one is opened
                log.debug("events.broken", error=repr(exc))
            self._look.set()  # a stream that ends is a reason to look
            self._stopping.wait(wait.total_seconds())
            wait = min(wait * 2, _RETRY_LONGEST)

    def _heed(self, event: Mapping[str, Any]) -> None:
        action = str(event.get("Action", ""))
        if action.startswith(_IRRELEVANT):
            return
        if action in ("start", "restart"):
            self._started.pop(str(event.get("id")), None)
        self._look.set()


def _without_status(container: Container | None) -> Container | None:
    """Leave out the sentence for people: "Up 3 minutes" changes by itself, and says nothing that `started` does not."""
    return container and container.model_copy(update={"status": ""})
