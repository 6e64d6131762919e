"""What was heard: events for Flower's tables, and the answers to what it would otherwise ask the workers.

Stock Flower fills a worker's page by asking the worker. Fleet's hosts give no answers, so the page is made of the
worker's own events: a little less is known, and nobody waits.
"""

import asyncio
import threading
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from flower.events import Events
from tornado.ioloop import IOLoop

from fleet import logs, names
from fleet.address import Address

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


class Inspector:
    """Stands where Flower's inspector stands, and asks nobody: a worker's page is made of the worker's events."""

    #: what a worker's page waits for before it is shown: nothing
    inspect_methods: tuple[str, ...] = ()

    def __init__(self, events: Listener, broker: Address) -> None:
        self._events = events
        self._broker = str(broker)

    @property
    def workers(self) -> dict[str, dict[str, Any]]:
        """What is known of each worker, in the shape of the answers that Celery's workers give."""
        state = self._events.state
        totals: dict[str, Counter[str]] = defaultdict(Counter)
        for task in state.tasks.values():
            if task.worker:
                totals[task.worker.hostname][task.name or "unknown"] += 1
        return {name: self._answer(name, worker, dict(totals[name])) for name, worker in state.workers.items()}

    def inspect(self, _worker: str | None = None) -> "asyncio.Future[None]":
        """Return at once: there is nobody to wait for."""
        asked: asyncio.Future[None] = asyncio.Future(loop=self._events.io_loop.asyncio_loop)
        asked.set_result(None)
        return asked

    def _answer(self, name: str, worker: Any, total: dict[str, int]) -> dict[str, Any]:
        host = name.removesuffix(_NODE)
        ours = name.endswith(_NODE) and names.HOST_ID.fullmatch(host)
        last = max(worker.heartbeats, default=None)
        return {
            "stats": {
                "pid": worker.pid,
                "broker": {"url": self._broker},
                "total": total,
                "software": f"{worker.sw_ident} {worker.sw_ver} on {worker.sw_sys}",
                "tasks in hand": worker.active,
                "tasks since its start": worker.processed,
                "load average": worker.loadavg,
                "last heartbeat event": last and datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds"),
                "more": f"`fleet host show {host}`, since a host answers no questions from Flower",
            },
            "active_queues": [_queue(names.queue(host))] if ours else [],
            "timestamp": last,
        }


def _queue(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "exchange": None,
        "routing_key": name,
        "exclusive": True,
        "durable": True,
        "no_ack": False,
        "alias": None,
        "queue_arguments": None,
        "binding_arguments": None,
        "auto_delete": False,
    }
