"""One session of a host worker: its parts, the order in which they start, and the order in which they stop.

queue ─▶ consumer (Celery) ─ guard ─▶ journal ─▶ pool ─▶ pipeline ─▶ endings ─▶ outbox ─▶ sender ─▶ reports
                 ▲                       │                   │
                 └──── runs that are due ┘                   └─▶ children (supervisors that outlive the worker)
threads beside it: sender, streams, hand-over, control list, deadlines, inventory watch, undoing, and the beat, for
heartbeat and pruning
"""

import os
import signal
import sqlite3
import threading
import warnings
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import redis
from celery import signals
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import state

from beat import host as schedule
from beat.scheduler import BeatThread
from fleet import clock, errors, logs, names
from fleet.address import Address
from fleet.broker.connection import connect, translated
from fleet.contracts import registry
from fleet.contracts.control import (
    CancelRun,
    CredentialIssued,
    KeyRotationRequested,
    MembershipRevoked,
    SetAvailability,
)
from fleet.contracts.reports import Kind
from fleet.settings import Settings
from workers.host import consumer, facts, kernel, pipeline
from workers.host.availability import Gate
from workers.host.children import Children
from workers.host.containers.engine import Engine
from workers.host.containers.inventory import InventoryWatch
from workers.host.control import ControlList
from workers.host.deadlines import Deadlines
from workers.host.endings import Endings
from workers.host.epoch import await_turn
from workers.host.guard import Guard, JournalUnusable
from workers.host.handover import Handover
from workers.host.heartbeat import HeartbeatWriter
from workers.host.inboxes import InboxMemory
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.own import REVOKED, Own
from workers.host.pruning import Pruning
from workers.host.publish import InventoryKey
from workers.host.pulse import Pulse
from workers.host.recovery import Recovery, hand_back
from workers.host.refusals import Refusals
from workers.host.running import EndRequest, Running, Why
from workers.host.sender import Sender
from workers.host.settling import Settling
from workers.host.stopping import Stopping
from workers.host.store import Store
from workers.host.streams import Streams
from workers.host.tasks.registry import performers, reconcilers
from workers.host.tasks.wiring import wire

log = logs.get(__name__)

#: Former sessions whose inboxes are looked into by a journal that remembers none.
_FORMER_INBOXES = 1000
#: How long a clean stop tries to hand the last reports to the broker.
_FAREWELL = timedelta(seconds=1.5)
#: What runs in a session that another has superseded gets this long to finish.
_GIVE_WAY_WITHIN = timedelta(seconds=3)
#: Run ids that a report holds.
_MOST_UNFINISHED = 2000


class Session:
    """All parts, wired."""

    #: the session that has taken over from this one
    _superseded_by: int | None = None
    #: whether the host was put out of the fleet
    _revoked = False

    def __init__(self, settings: Settings, *, own: Own, broker: Address, store: Store) -> None:
        host = own.host
        self._host = host
        self._own = own
        self._store = store
        self._left = threading.Lock()
        started_at = clock.now()
        broker_clock = clock.BrokerClock()
        self._link = connect(broker, name=f"{host}-link", connections=2, timeout=timedelta(seconds=3), login=own.login)
        known = int(store.recall("epoch") or 0)
        epoch = await_turn(self._link, host, broker, known=known, broker_clock=broker_clock)

        engine = Engine(settings.resolved_docker_url)
        self._facts = facts.detect(settings, engine)
        self._running = Running()
        self._deadlines = Deadlines()
        rebooted = store.recall("boot") not in {None, kernel.boot()}
        self._outbox = Outbox(store, host=host, epoch=epoch.number, clock=broker_clock)
        self._journal = Journal(store, self._outbox, clock=broker_clock)
        self._endings = Endings(store, self._outbox, clock=broker_clock)
        self._gate = Gate(store, self._outbox, self._running, self._deadlines, clock=broker_clock)
        self._children = Children(
            settings.host_dir(host) / "spool",
            docker_url=settings.resolved_docker_url,
            memory_bytes=settings.task_memory,
        )
        self._stopping = Stopping(
            self._running, self._gate, grace=settings.stop_grace, wake=self._wake, take_leave=self._take_leave
        )
        self._on_containers = wire(
            settings, engine, host=host, journal=self._journal, outbox=self._outbox, running=self._running
        )
        settling = Settling(
            self._endings,
            reconcilers(self._on_containers.tasks),
            broker_clock=broker_clock,
            stopping=self._stopping.over,
            on_abandoned=self._on_containers.undoing.abandoned,
        )
        self._handover = Handover(
            self._link, self._journal, host=host, epoch=epoch.number, on_unusable=consumer.end_worker
        )
        self._refusals = Refusals(self._outbox, self._link, host=host, clock=broker_clock)
        self._sender = Sender(self._outbox, self._link, own)
        self._streams = Streams(
            connect(broker, name=f"{host}-output", timeout=timedelta(seconds=3), login=own.login),
            own,
            clock=broker_clock,
        )
        self._inventory = InventoryWatch(
            engine,
            publish=InventoryKey(self._link, host=host, interval=settings.inventory_interval, clock=broker_clock).write,
            report=self._outbox.report,
            interval=settings.inventory_interval,
            on_found=self._on_containers.restoring.look,
        )
        self._control = ControlList(
            connect(broker, name=f"{host}-control", timeout=timedelta(seconds=3), login=own.login),
            {
                "reports.acknowledged": lambda m: self._outbox.acknowledge(m.epoch, m.seq),
                "reports.missing": lambda _m: self._outbox.send_again(),
                "inventory.requested": lambda _m: self._inventory.sync_now(),
                "run.cancel": self._cancel,
                "host.availability": self._set_availability,
                "trust.updated": lambda m: own.learn_trust(m.statement),
                "credential.issued": self._take_credential,
                "key.rotation_requested": self._offer_key,
                "membership.revoked": self._leave_fleet,
                "secrets.issued": self._on_containers.secrets.answer,
            },
            own=own,
            epoch=epoch.number,
            clock=broker_clock,
            on_superseded=self._give_way,
            on_refused=self._refusals.report,
            pushed_by=self._journal.pushed_by,
        )
        pulse = Pulse()
        self._heartbeat = HeartbeatWriter(
            connect(broker, name=f"{host}-heartbeat", timeout=timedelta(seconds=1), login=own.login),
            host=host,
            facts=self._facts,
            started_at=started_at,
            pulse=pulse,
            outbox=self._outbox,
            inventory=self._inventory,
            journal=self._journal,
            running=self._running,
            gate=self._gate,
            clock=broker_clock,
        )
        memory = InboxMemory(store, epoch=epoch.number)
        former = _former_inboxes(host, memory)
        recovery = Recovery(self._journal, self._endings, settling, self._children, self._running)
        self._children.start()
        with translated(broker):
            self._learn_trust()
            self._control.catch_up()  # what was cancelled or paused meanwhile, before anything begins
            recovery.run(self._link, inboxes=former, superseded=epoch.superseded, rebooted=rebooted)

        performed = pipeline.Pipeline(
            host=host,
            journal=self._journal,
            endings=self._endings,
            settling=settling,
            handover=self._handover,
            running=self._running,
            deadlines=self._deadlines,
            children=self._children,
            streams=self._streams,
            performers=performers(lambda: facts.detect(settings, engine), self._on_containers.tasks),
            engine=engine,
            on_unusable=consumer.end_worker,
        )
        guard = Guard(
            own=own,
            tasks=registry.known(),
            journal=self._journal,
            refusals=self._refusals,
            clock=broker_clock,
            in_hand=self._handover.has,
        )
        self._inboxes = (names.inbox(host, epoch.number), *former)
        self._app = consumer.make_app(
            host,
            broker,
            inbox=self._inboxes[0],
            former_inboxes=former,
            on_malformed=partial(self._put_aside, guard),
            on_reconciled=memory.reconciled,
            takes_work=self._gate.is_open,
            link=self._link,
            login=own.login,
        )
        self._app.task(name=schedule.HEARTBEAT_TASK, ignore_result=True, shared=False)(self._heartbeat.write)
        self._app.task(name=schedule.PRUNE_TASK, ignore_result=True, shared=False)(
            Pruning(store, clock=broker_clock).run
        )
        pipeline.register(self._app, performed)
        self._app.steps["consumer"].update((consumer.PulseStep, consumer.DueStep))
        self._beat = BeatThread(self._app, schedule.ENTRIES, name="beat")
        self._worker = self._app.Worker(
            hostname=names.worker_node(host),
            pool="threads",
            concurrency=settings.concurrency,
            consumer_cls=partial(
                consumer.HostConsumer,
                guard=guard,
                journal=self._journal,
                handover=self._handover,
                running=self._running,
                takes_work=self._gate.is_open,
                give_up=performed.give_up,
                pulse=pulse,
                on_connected=self._on_connected,
            ),
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
        signals.worker_shutting_down.connect(self._on_signal, weak=False)
        self._running.on_leave = self._wake
        parts = (
            self._sender,
            self._control,
            self._inventory,
            self._on_containers.undoing,
            self._handover,
            self._deadlines,
            self._streams,
        )
        for thread in parts:
            thread.start()
        try:
            self._worker.start()
        finally:
            self._take_leave()
            self._stopping.over.set()
        if self._superseded_by:
            return os.EX_TEMPFAIL
        return os.EX_NOPERM if self._revoked else int(self._worker.exitcode or 0)

    def _on_connected(self) -> None:
        """Write anew what the broker may have lost, instead of waiting for its time."""
        with suppress(redis.RedisError):  # it has gone again; so will the consumer's connection have, and come here
            self._link.set(names.epoch(self._host), self._outbox.epoch, nx=True)
        self._beat.hurry("heartbeat")
        self._inventory.sync_now()

    def _on_ready(self, **_: Any) -> None:
        # Running tasks are kept through a connection loss on purpose; the journal makes that safe. Celery switches this
        # warning on when it sets up its logging, so it is switched off only now.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        # Celery would start the program anew at a hang-up; a supervisor's hang-up means stop.
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        self._beat.start()
        told = {
            "facts": self._facts.model_dump(mode="json"),
            "version": self._facts.fleet_version,
            "journal": self._journal.id,
            "unfinished": self._journal.unfinished(_MOST_UNFINISHED),
        }
        self._outbox.report(Kind.HOST_REGISTERED, told)
        log.info("worker.started", host=self._host, epoch=self._outbox.epoch, docker=self._facts.docker_version)

    def _on_signal(self, **_: Any) -> None:
        self._stopping.begin()

    def _wake(self) -> None:
        """Let the event loop see at once what has changed; by itself it looks twice a second."""
        hub: Any = self._worker.hub
        if hub is not None:
            hub.call_soon(_nothing)

    def _cancel(self, message: CancelRun) -> None:
        if self._journal.cancel(message):
            self._running.end(message.run, EndRequest(Why.CANCELLED, message))

    def _set_availability(self, message: SetAvailability) -> None:
        self._gate.set(message)
        self._beat.hurry("heartbeat")
        self._wake()

    def _give_way(self, newer: int) -> None:
        """End, because another session of this host has begun; what runs has a moment to finish."""
        self._superseded_by = newer
        log.error("worker.superseded", by=newer, next="this one ends; give one of the two another --host-id")
        self._outbox.report(Kind.HOST_FENCED, {"newer": newer})
        self._stopping.begin(grace=_GIVE_WAY_WITHIN)
        state.should_stop = os.EX_TEMPFAIL  # type: ignore[assignment]  # the stubs know None only

    def _learn_trust(self) -> None:
        """Believe what the fleet has said of itself meanwhile; what cannot be believed changes nothing."""
        try:
            statement: Any = self._link.get(names.TRUST)
            if statement:
                self._own.learn_trust(statement)
        except (errors.NotTrusted, UnicodeDecodeError) as exc:
            log.warning("trust.unlearned", error=str(exc), next="what was known before counts")

    def _take_credential(self, message: CredentialIssued) -> None:
        if self._own.learn_credential(message.credential):
            self._outbox.report(Kind.HOST_CREDENTIAL_TAKEN, {"key": self._own.identity.key})

    def _offer_key(self, _message: KeyRotationRequested) -> None:
        key, broker_hash = self._own.offer()
        self._outbox.report(Kind.HOST_KEY_OFFERED, {"key": key, "broker_hash": broker_hash})

    def _leave_fleet(self, message: MembershipRevoked) -> None:
        """End at once: the host does not belong to the fleet any more, and nothing of the fleet may run on."""
        with self._store.transaction(durable=True) as transaction:
            self._store.remember(transaction, REVOKED, self._own.identity.key)
        self._revoked = True
        log.error("host.revoked", by=message.by, next="the worker ends, and does not start again without a new token")
        self._stopping.begin(grace=timedelta(0))
        state.should_stop = os.EX_NOPERM  # type: ignore[assignment]  # the stubs know None only
        self._wake()

    def _put_aside(self, guard: Guard, item: bytes, problem: str) -> None:
        """Take note of an item that is no message; where the journal cannot, the item stays and the worker ends."""
        try:
            guard.malformed(item, problem)
        except JournalUnusable as exc:
            consumer.end_worker(exc)
        else:
            self._handover.settle(item)

    def _take_leave(self) -> None:
        """Stop all parts and say goodbye, once; the rest of the work goes back to where it came from."""
        if not self._left.acquire(blocking=False):
            return
        self._beat.stop()
        self._inventory.stop()
        self._on_containers.undoing.stop()
        self._control.stop()
        self._handover.stop()
        self._deadlines.stop()
        try:
            hand_back(self._journal, self._link, host=self._host, inboxes=self._inboxes)
            if not self._superseded_by:
                self._heartbeat.clear()
        except (redis.RedisError, sqlite3.Error) as exc:
            log.warning("worker.unclean", error=str(exc), next="the next start does the rest")
        try:
            if not self._superseded_by:
                self._outbox.report(Kind.HOST_DEREGISTERED)
            self._store.sync()
        except sqlite3.Error as exc:  # often the very reason to end
            log.warning("outbox.unwritable", error=str(exc), next="the sign-off is not on record")
        self._streams.stop(timeout=_FAREWELL)
        self._sender.stop(timeout=_FAREWELL)
        self._children.close()
        log.info("worker.stopped", host=self._host)


def _former_inboxes(host: str, memory: InboxMemory) -> tuple[str, ...]:
    oldest = memory.oldest() or max(1, memory.epoch - _FORMER_INBOXES)
    return tuple(names.inbox(host, old) for old in range(memory.epoch - 1, oldest - 1, -1))


def _nothing() -> None:
    """Be called by the event loop, which has then woken up."""
