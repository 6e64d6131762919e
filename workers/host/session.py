"""One session of a host worker: the order in which its parts start, and what it says when they have.

It takes an epoch, has its parts put together (`workers.host.assembly`), hears what was said meanwhile, takes up what
the former session left, and only then consumes. Beside Celery's consumer and its pool run the threads of sender,
streams, hand-over, control list, deadlines, inventory watch and undoing, and the beat, for heartbeat and pruning. It
ends by a signal (`workers.host.stopping`) or by dismissal, and takes leave in order (`workers.host.leaving`).
"""

import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import redis
from celery import signals
from celery.exceptions import CPendingDeprecationWarning

from beat import host as schedule
from beat.scheduler import BeatThread
from fleet import clock, logs, names
from fleet.address import Address
from fleet.broker.connection import connect, translated
from fleet.contracts.reports import Kind
from fleet.settings import Settings
from workers.host import consumer, contract_tasks, kernel
from workers.host.assembly import Assembly
from workers.host.epoch import await_turn
from workers.host.health import HostHealth, Parts
from workers.host.inboxes import InboxMemory
from workers.host.leaving import Leave
from workers.host.metrics import HostMetrics, Sources
from workers.host.obeying import learn
from workers.host.own import Own
from workers.host.pipeline import Pipeline
from workers.host.pruning import Pruning
from workers.host.store import Store

log = logs.get(__name__)

#: Run ids that a report holds.
_MOST_UNFINISHED = 2000


class Session:
    """One session, from its epoch to its leave."""

    #: whether a signal has come
    told_to_stop = False
    #: None while the session is put together, and acts upon what was said meanwhile
    _worker: Any = None

    def __init__(
        self,
        settings: Settings,
        *,
        own: Own,
        broker: Address,
        store: Store,
        on_alive: Callable[[], None],
        health: HostHealth,
        metrics: HostMetrics,
        on_ending: Callable[[], None],
    ) -> None:
        host = own.host
        self._host, self._unlisted = host, settings.unlisted
        self._on_alive = on_alive
        started_at = clock.now()
        broker_clock = clock.BrokerClock()
        self._link = connect(broker, name=f"{host}-link", connections=2, timeout=timedelta(seconds=3), login=own.login)
        known = int(store.recall("epoch") or 0)
        epoch = await_turn(self._link, host, broker, known=known, broker_clock=broker_clock)
        rebooted = store.recall("boot") not in {None, kernel.boot()}  # asked before the outbox writes down this one

        self._parts = parts = Assembly(
            settings,
            own=own,
            broker=broker,
            link=self._link,
            store=store,
            epoch=epoch,
            clock=broker_clock,
            started_at=started_at,
            wake=self._wake,
            take_leave=self._take_leave,
            on_ending=on_ending,
            on_availability=self._show_availability,
        )
        self.dismissal = parts.dismissal
        memory = InboxMemory(store, epoch=epoch.number)
        inbox, former = names.inbox(host, epoch.number), memory.former(host)
        parts.children.start()
        with translated(broker):
            learn(self._link, names.TRUST, own.learn_trust)
            learn(self._link, names.POLICY, parts.governance.learn)
            parts.governance.parking.take_up()
            parts.control.catch_up()  # what was cancelled or paused meanwhile, before anything begins
            parts.recovery.run(self._link, inboxes=former, superseded=epoch.superseded, rebooted=rebooted)

        performed, guard = parts.pipeline(), parts.guard()
        self._app = consumer.make_app(
            host,
            broker,
            inbox=inbox,
            former_inboxes=former,
            on_malformed=partial(consumer.put_aside, guard, parts.handover),
            on_reconciled=memory.reconciled,
            takes_work=parts.gate.is_open,
            link=self._link,
            login=own.login,
            pulse=parts.pulse,
        )
        self._furnish(performed, Pruning(store, clock=broker_clock))
        self._beat = BeatThread(self._app, schedule.ENTRIES, name="beat")
        metrics.watch(
            Sources(
                journal=parts.journal,
                outbox=parts.outbox,
                pulse=parts.pulse,
                clock=broker_clock,
                in_hand=parts.running.__len__,
                heartbeat=lambda: parts.heartbeat.last,
            )
        )
        health.watch(
            Parts(
                pulse=parts.pulse,
                beat=self._beat,
                docker=parts.inventory,
                gate=parts.gate,
                stopping=parts.stopping,
                journal=store,
                ending=parts.dismissal.reason,
            )
        )
        self._worker = consumer.make_worker(
            self._app,
            host,
            concurrency=settings.concurrency,
            listed=not settings.unlisted,
            guard=guard,
            journal=parts.journal,
            handover=parts.handover,
            running=parts.running,
            takes_work=parts.gate.is_open,
            give_up=performed.give_up,
            pulse=parts.pulse,
            on_connected=self._on_connected,
        )
        self._leave = Leave(
            host=host,
            link=self._link,
            inboxes=(inbox, *former),
            store=store,
            journal=parts.journal,
            outbox=parts.outbox,
            heartbeat=parts.heartbeat,
            dismissal=parts.dismissal,
            at_work=(
                self._beat,
                parts.inventory,
                parts.on_containers.undoing,
                parts.control,
                parts.handover,
                parts.deadlines,
            ),
            streams=parts.streams,
            sender=parts.sender,
            children=parts.children,
        )

    def _furnish(self, performed: Pipeline, pruning: Pruning) -> None:
        """Give the app the tasks of contracts and of the beat, and what looks for work in the journal."""
        self._app.task(name=schedule.HEARTBEAT_TASK, ignore_result=True, shared=False)(self._show_life)
        self._app.task(name=schedule.PRUNE_TASK, ignore_result=True, shared=False)(pruning.run)
        contract_tasks.register(self._app, performed)
        self._app.steps["consumer"].update((consumer.PulseStep, consumer.DueStep))

    def run(self) -> int:
        """Consume until told to stop, then take leave in order."""
        parts = self._parts
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutting_down.connect(self._on_signal, weak=False)
        parts.running.on_leave = self._wake
        for thread in (
            parts.sender,
            parts.control,
            parts.inventory,
            parts.on_containers.undoing,
            parts.handover,
            parts.deadlines,
            parts.streams,
        ):
            thread.start()
        try:
            self._worker.start()
            parts.stopping.finish()
        finally:
            self._take_leave()
            parts.stopping.over.set()
        return parts.dismissal.exit_code() or int(self._worker.exitcode or 0)

    def _take_leave(self) -> None:
        self._leave.take()

    def _show_life(self) -> None:
        """Write a heartbeat; the first comes when the consumer is ready, so whoever waits for that may stop."""
        self._parts.heartbeat.write()
        self._on_alive()

    def _show_availability(self) -> None:
        """Let the fleet see soon whether this host takes work, and the consumer at once."""
        if self._worker:
            self._beat.hurry("heartbeat")
        self._wake()

    def _on_connected(self) -> None:
        """Write anew what the broker may have lost, instead of waiting for its time."""
        with suppress(redis.RedisError):  # it has gone again; so will the consumer's connection have, and come here
            self._link.set(names.epoch(self._host), self._parts.outbox.epoch, nx=True)
        self._beat.hurry("heartbeat")
        self._parts.inventory.sync_now()

    def _on_ready(self, **_: Any) -> None:
        # Running tasks are kept through a connection loss on purpose; the journal makes that safe. Celery switches this
        # warning on when it sets up its logging, so it is switched off only now.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        # Celery would start the program anew at a hang-up; a supervisor's hang-up means stop.
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        self._beat.start()
        facts, journal, outbox = self._parts.facts, self._parts.journal, self._parts.outbox
        told = {
            "facts": None if self._unlisted else facts.model_dump(mode="json"),
            "unlisted": self._unlisted,
            "version": facts.fleet_version,
            "journal": journal.id,
            "unfinished": journal.unfinished(_MOST_UNFINISHED),
        }
        outbox.report(Kind.HOST_REGISTERED, told)
        log.info("worker.started", host=self._host, epoch=outbox.epoch, docker=facts.docker_version)

    def _on_signal(self, **_: Any) -> None:
        self.told_to_stop = True
        self._parts.stopping.begin()

    def _wake(self) -> None:
        """Let the event loop see at once what has changed; by itself it looks twice a second."""
        hub: Any = self._worker.hub if self._worker else None
        if hub is not None:
            hub.call_soon(_nothing)


def _nothing() -> None:
    """Be called by the event loop, which has then woken up."""
