"""The host worker's process: what it is made of, in which order it starts, and in which it stops.

store ─ outbox ─ journal ─ guard ─▶ consumer (Celery) ─▶ pool ─▶ pipeline
threads beside it: sender (reports), control list, inventory watch, beat (heartbeat)
"""

import fcntl
import logging
import os
import signal
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import kombu
import redis
from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

from beat import host as schedule
from beat.scheduler import BeatThread
from fleet import clock, errors, logs, names
from fleet.broker import app as broker_app
from fleet.broker.connection import connect, translated
from fleet.contracts.enrollment import Credential
from fleet.contracts.reports import Kind
from fleet.settings import Settings
from workers.host import epoch, facts, pipeline, recovery
from workers.host.consumer import HostConsumer, PulseStep, put_aside
from workers.host.control import ControlList
from workers.host.engine import Engine
from workers.host.guard import Guard
from workers.host.heartbeat import HeartbeatWriter
from workers.host.inboxes import InboxMemory
from workers.host.inventory import InventoryWatch
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.publish import InventoryKey
from workers.host.pulse import Pulse
from workers.host.sender import Sender
from workers.host.store import Store
from workers.host.tasks.registry import performers

log = logs.get(__name__)

#: Former sessions whose inboxes are looked into by a journal that remembers none.
_FORMER_INBOXES = 1000
#: How long a clean stop tries to hand the last reports to the broker.
_FAREWELL = timedelta(seconds=1.5)


def main(settings: Settings, *, host: str, credential: Credential) -> int:
    """Run the worker of `host` until it is told to stop; return the exit code.

    Raises `errors.LocalFault` where another worker of this host runs on the same state directory, or its journal is
    unusable, and `errors.BrokerRefused` where the broker does not take the credential.
    """
    _quieten_celery()
    broker_url = credential.broker_url.get_secret_value()
    with _only_worker(settings.host_dir(host) / "worker.lock", host):
        store = Store(settings.host_dir(host) / "journal.db", host=host)
        try:
            return HostWorker(settings, host=host, broker_url=broker_url, store=store).run()
        except sqlite3.Error as exc:
            raise errors.LocalFault(
                f"journal {store.path}: cannot be written ({exc})", remedy="free some space, or mend the disk"
            ) from exc
        finally:
            store.close()


def _quieten_celery() -> None:
    """Leave logging to `fleet.logs`, and drop what Celery says that is so by design."""
    signals.setup_logging.connect(_keep_logging, weak=False)
    # A worker that drives the Docker Engine is as good as root; README says so.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Fleet's own `broker.lost` and `broker.regained` say it once an outage.
    logging.getLogger("celery.worker.consumer.consumer").setLevel(logging.ERROR)


def _keep_logging(**_: Any) -> None:
    """Be a receiver of `setup_logging`: Celery configures logging itself only where there is none."""


class HostWorker:
    """All parts of one worker session, wired."""

    def __init__(self, settings: Settings, *, host: str, broker_url: str, store: Store) -> None:
        self._host = host
        self._stopping = threading.Event()
        started_at = clock.now()
        broker_clock = clock.BrokerClock()
        self._link = connect(broker_url, name=f"{host}-link", timeout=timedelta(seconds=3))
        number = self._take_epoch(broker_url, store, broker_clock)

        engine = Engine(settings.resolved_docker_url)
        detected = facts.detect(settings, engine)
        self._facts = detected
        self._outbox = Outbox(store, host=host, epoch=number, clock=broker_clock)
        journal = Journal(store, self._outbox, clock=broker_clock)
        with translated(broker_url):
            recovery.recover(journal, self._link, host=host)
        pulse = Pulse()
        self._sender = Sender(self._outbox, self._link, host=host)
        self._inventory = InventoryWatch(
            engine,
            publish=InventoryKey(self._link, host=host, interval=settings.inventory_interval, clock=broker_clock).write,
            report=self._outbox.report,
            interval=settings.inventory_interval,
        )
        self._control = ControlList(
            connect(broker_url, name=f"{host}-control", timeout=timedelta(seconds=3)),
            {
                "reports.acknowledged": lambda m: self._outbox.acknowledge(int(m["epoch"]), int(m["seq"])),
                "inventory.requested": lambda _m: self._inventory.sync_now(),
            },
            host=host,
        )
        heartbeat = HeartbeatWriter(
            connect(broker_url, name=f"{host}-heartbeat", timeout=timedelta(seconds=1)),
            host=host,
            facts=detected,
            started_at=started_at,
            pulse=pulse,
            outbox=self._outbox,
            inventory=self._inventory,
            clock=broker_clock,
        )
        self._heartbeat = heartbeat
        offered = performers(engine, lambda: facts.detect(settings, engine))
        guard = Guard(
            host=host, tasks=offered, journal=journal, outbox=self._outbox, clock=broker_clock, client=self._link
        )
        self._app = _celery(host, broker_url, guard, self._link, InboxMemory(store, epoch=number))
        self._app.task(name=schedule.HEARTBEAT_TASK, ignore_result=True, shared=False)(heartbeat.write)
        pipeline.register(self._app, pipeline.Pipeline(host=host, journal=journal, performers=offered, engine=engine))
        self._app.steps["consumer"].add(PulseStep)
        self._beat = BeatThread(self._app, schedule.ENTRIES, name="beat")
        self._worker = self._app.Worker(
            hostname=names.worker_node(host),
            pool="threads",
            concurrency=settings.concurrency,
            consumer_cls=partial(HostConsumer, guard=guard, pulse=pulse, on_connected=self._on_connected),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=False,
            heartbeat_interval=10,  # Flower calls a worker offline after two of these
            task_events=True,
            quiet=True,
        )

    def run(self) -> int:
        """Consume until told to stop, then take leave in order."""
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutting_down.connect(self._wake_loop, weak=False)
        threads = (self._sender, self._control, self._inventory)
        for thread in threads:
            thread.start()
        try:
            self._worker.start()
        finally:
            self._take_leave()
        return int(self._worker.exitcode or 0)

    def _on_connected(self) -> None:
        """Write anew what the broker may have lost, instead of waiting for its time."""
        self._beat.hurry("heartbeat")
        self._inventory.sync_now()

    def _on_ready(self, **_: Any) -> None:
        # Running tasks are kept through a connection loss on purpose; the journal makes that safe. Celery switches this
        # warning on when it sets up its logging, so it is switched off only now.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        # Celery would start the program anew at a hang-up; a supervisor's hang-up means stop.
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        self._beat.start()
        self._outbox.report(
            Kind.HOST_REGISTERED, {"facts": self._facts.model_dump(mode="json"), "version": self._facts.fleet_version}
        )
        log.info("worker.started", host=self._host, epoch=self._outbox.epoch, docker=self._facts.docker_version)

    def _wake_loop(self, **_: Any) -> None:
        """Let the loops see at once that they are to stop; a signal alone leaves each waiting for up to a second."""

        hub: Any = self._worker.hub

        def wake() -> None:
            hub.call_soon(_nothing)
            self._control.stop()

        threading.Thread(target=wake, name="waker", daemon=True).start()

    def _take_leave(self) -> None:
        self._beat.stop()
        self._inventory.stop()
        self._control.stop()
        try:
            self._heartbeat.clear()
        except redis.RedisError as exc:
            log.warning("presence.uncleared", error=str(exc), next="the key runs out by itself")
        try:
            self._outbox.report(Kind.HOST_DEREGISTERED)
        except sqlite3.Error as exc:  # often the very reason to end
            log.warning("outbox.unwritable", error=str(exc), next="the sign-off is not on record")
        self._sender.stop(timeout=_FAREWELL)
        log.info("worker.stopped", host=self._host)

    def _take_epoch(self, broker_url: str, store: Store, broker_clock: clock.BrokerClock) -> int:
        """Take the session's epoch and the broker's time, waiting for a broker that is away."""
        known = int(store.recall("epoch") or 0)
        failing = False
        while True:
            try:
                with translated(broker_url):
                    measured: Any = self._link.time()  # the queue is read before the first heartbeat measures it
                    broker_clock.measure(measured)
                    return epoch.take(self._link, self._host, at_least=known)
            except errors.BrokerRefused:
                raise
            except errors.BrokerUnavailable as exc:
                if not failing:
                    failing = True
                    log.warning("broker.awaited", error=str(exc))
                time.sleep(0.5)  # nothing runs yet that an event could come from; a signal ends the process


def _nothing() -> None:
    """Be called by the event loop, which has then woken up."""


def _celery(host: str, broker_url: str, guard: Guard, link: "redis.Redis", memory: InboxMemory) -> Celery:
    oldest = memory.oldest() or max(1, memory.epoch - _FORMER_INBOXES)
    former = tuple(names.inbox(host, old) for old in range(memory.epoch - 1, oldest - 1, -1))
    queue = kombu.Queue(names.queue(host), kombu.Exchange(""), names.queue(host), no_declare=True)
    return broker_app.make(
        f"fleet-{host}",
        broker_url=broker_url,
        transport="workers.host.transport:Transport",
        transport_options={
            "client_name": f"fleet-{host}",
            "fanout_prefix": names.fanout_prefix(host),
            "polling_interval": 5,  # how long a BLMOVE waits; an idle host asks that seldom
            "inbox": names.inbox(host, memory.epoch),
            "former_inboxes": former,
            "on_malformed": partial(put_aside, guard),
            "on_reconciled": memory.reconciled,
            "link": link,
        },
        result_backend="disabled://",  # the outbox writes results
        task_queues=(queue,),
        task_create_missing_queues=False,
        worker_disable_prefetch=True,  # what waits, waits in the broker, where it can still be taken back
        worker_prefetch_multiplier=1,
        worker_disable_rate_limits=True,
        worker_enable_remote_control=False,  # pidbox takes orders from anybody, unsigned
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_detect_quorum_queues=False,
        worker_send_task_events=True,
        worker_timer_precision=0.5,
    )


@contextmanager
def _only_worker(path: Path, host: str) -> Iterator[None]:
    """Hold the lock of this host's state; raises `errors.LocalFault` where another worker has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.seek(0)
            raise errors.LocalFault(
                f"a worker of host {host!r} runs already (process {lock.read().strip() or 'unknown'})",
                remedy="stop it first, or give this one another --host-id",
            ) from exc
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield
