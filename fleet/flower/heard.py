"""What was heard: events for Flower's tables, and the answers to what it would otherwise ask the workers.

Stock Flower fills a worker's page by asking the worker. Fleet's hosts give no answers, so the page is made of the
worker's own events: a little less is known, and nobody waits.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from flower.events import Events
from tornado.ioloop import IOLoop

from fleet import logs, names, redaction

log = logs.get(__name__)

#: The wait before the broker is tried again. Stock Flower's doubles without a bound.
_RETRY_SECONDS = 1.0
_NODE = "@fleet"


class Listener(Events):  # type: ignore[misc]
    """Flower's event thread, with a bounded wait and one log line an outage."""

    def __init__(self, capp: Celery, io_loop: IOLoop, *, max_workers: int, max_tasks: int) -> None:
        super().__init__(
            capp, io_loop, enable_events=False, max_workers_in_memory=max_workers, max_tasks_in_memory=max_tasks
        )
        self.name = "events"
        self._stopped = threading.Event()
        self._failing = False

    def run(self) -> None:
        """Listen until the process ends (the thread is a daemon: it blocks on the broker)."""
        while not self._stopped.is_set():
            try:
                with self.capp.connection_for_read() as connection:
                    receiver = EventReceiver(connection, handlers={"*": self.on_event}, app=self.capp)
                    for _ in receiver.itercapture(limit=None, timeout=None, wakeup=False):
                        pass
            except Exception as exc:  # noqa: BLE001 - whatever it is, Flower must hear again when it is over
                if not self._failing and not self._stopped.is_set():
                    log.warning("broker.lost", error=str(exc), next="tried again every second")
                self._failing = True
            self._stopped.wait(_RETRY_SECONDS)

    def on_event(self, event: dict[str, Any]) -> None:
        if self._failing:
            self._failing = False
            log.info("broker.regained")
        super().on_event(event)

    def stop(self) -> None:
        self._stopped.set()
        super().stop()


class Answers(Mapping[str, dict[str, Any]]):
    """What stock Flower's inspector would know of each worker, made of events when it is asked for."""

    def __init__(self, events: Listener, broker_url: str) -> None:
        self._events = events
        self._broker_url = redaction.url(broker_url)

    def __getitem__(self, name: str) -> dict[str, Any]:
        state = self._events.state
        worker = state.workers[name]  # KeyError is what a Mapping owes
        done = Counter(
            task.name or "?" for task in state.tasks.values() if task.worker and task.worker.hostname == name
        )
        queues = []
        if name.endswith(_NODE) and names.HOST_ID.fullmatch(name.removesuffix(_NODE)):
            queues.append(_queue(names.queue(name.removesuffix(_NODE))))
        last = (
            datetime.fromtimestamp(max(worker.heartbeats), UTC).isoformat(timespec="seconds")
            if worker.heartbeats
            else None
        )
        return {
            "stats": {
                "pid": worker.pid,
                "broker": {"url": self._broker_url},
                "total": dict(done),
                "software": f"{worker.sw_ident} {worker.sw_ver} on {worker.sw_sys}",
                "tasks in hand": worker.active,
                "tasks processed since its start": worker.processed,
                "load average": worker.loadavg,
                "last heartbeat event": last,
                "more": f"`fleet host show {name.removesuffix(_NODE)}`: a host answers no questions from Flower",
            },
            "active_queues": queues,
            "timestamp": worker.timestamp,
        }

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._events.state.workers))

    def __len__(self) -> int:
        return len(self._events.state.workers)


class Inspector:
    """Stands where Flower's inspector stands; asks nobody."""

    #: what a worker's page waits for before it is shown: nothing
    inspect_methods: tuple[str, ...] = ()

    def __init__(self, workers: Answers) -> None:
        self.workers = workers

    def inspect(self, _worker: str | None = None) -> "asyncio.Future[None]":
        """Return at once: the answers are there."""
        asked: asyncio.Future[None] = asyncio.Future(loop=IOLoop.current().asyncio_loop)  # type: ignore[attr-defined]
        asked.set_result(None)
        return asked


def _queue(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "routing_key": name,
        "exclusive": True,
        "durable": True,
        "no_ack": False,
        "alias": None,
        "queue_arguments": None,
        "binding_arguments": None,
        "auto_delete": False,
    }
