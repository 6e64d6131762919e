"""The consumer: Celery's, with the guard before it, the journal's word as the acknowledgement, and runs of the journal.

Runs come from two places: the queue, and the journal, where they wait for their time, for another attempt, or since a
restart. Both get into the pool by Celery's own strategy, and never more of them than the pool has threads.
"""

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import kombu
from celery import Celery, bootsteps
from celery.worker import state
from celery.worker.consumer import Consumer

from fleet import logs, names
from fleet.address import Address
from fleet.broker import app as broker_app
from workers.host.guard import Guard, JournalUnusable
from workers.host.handover import Handover
from workers.host.journal import Journal
from workers.host.pulse import Pulse
from workers.host.running import Running

log = logs.get(__name__)

#: Wait before the first try to reconnect, what each further one adds, and the longest, in seconds. Celery's own 2, 2
#: and 30 leave a host idle for half a minute after a broker restart.
_RECONNECT = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 2.0}
#: How often the journal is asked for runs whose time has come; with the loop's own precision, they begin within half a
#: second.
_DUE_SECONDS = 0.25


class HostConsumer(Consumer):
    """Consumes the host's queue: guard, journal, inbox, then Celery's own strategy and pool."""

    def __init__(
        self,
        *args: Any,
        guard: Guard,
        journal: Journal,
        handover: Handover,
        running: Running,
        takes_work: Callable[[], bool],
        give_up: Callable[[str, str], None],
        pulse: Pulse,
        on_connected: Callable[[], None],
        **kwargs: Any,
    ) -> None:
        self._guard = guard
        self._journal = journal
        self._handover = handover
        self._running = running
        self._takes_work = takes_work
        self._on_connected = on_connected
        self._give_up = give_up
        #: gives a message of a run to the pool; None before the loop runs
        self._give: Callable[[Any, str], None] | None = None
        self.pulse = pulse
        super().__init__(*args, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        deliver = super().create_task_handler(*args, **kwargs)

        def give(message: Any, run_id: str) -> None:
            self._running.enter(run_id)
            try:
                deliver(message)
            except Exception as exc:
                log.exception("run.undelivered", run=run_id)
                try:
                    self._give_up(run_id, f"{type(exc).__name__}: {exc}")
                except sqlite3.Error as unusable:
                    end_worker(unusable)
                self._running.leave(run_id)

        def on_task_received(message: Any) -> None:
            try:
                form = (message.content_type, message.content_encoding)
                admitted = self._guard.admit(message.item, message.headers, message.body, form=form)
            except JournalUnusable as exc:
                end_worker(exc)
                return
            if admitted is None:
                self._handover.settle(message.item, run_id=message.headers.get("id"))
                message.ack()
                return
            if admitted.claim is None:
                self._handover.hold(admitted.run_id, message.item.decode())
            else:
                self._handover.settle(message.item, run_id=admitted.run_id)
                self._running.enter(admitted.run_id, admitted.claim)
            give(message, admitted.run_id)

        self._give = give
        return on_task_received

    def take_due(self) -> None:
        """Give the pool what the journal has for it, as far as there is room."""
        room = self._room()
        if self._give is None or room <= 0 or not self._takes_work():
            return
        try:
            due = self._journal.due(room, besides=self._running.ids())
        except sqlite3.Error as exc:
            end_worker(exc)
            return
        channel: Any = self.task_consumer.channel  # type: ignore[attr-defined]  # missing in the stubs
        for run_id, item in due:
            self._give(channel.from_journal(item), run_id)

    def beat(self) -> None:
        """Have the pulse tick; a worker that wants no work is not expected to ask for any."""
        self.pulse.tick()
        if self._room() <= 0 or not self._takes_work():
            self.pulse.ask()

    def _room(self) -> int:
        return int(self.pool.num_processes) - len(state.reserved_requests)

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # wrong in the stubs
        """Leave Celery's events for the next `tick`: they are hints for Flower, and each publishing holds work up."""

    def tick(self) -> None:
        self.take_due()
        self._flush_events()  # type: ignore[attr-defined]  # missing in the stubs

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying often; Celery's own waits grow to 30 s."""
        failing = False

        def still_trying() -> None:
            self.pulse.breathe()
            state.maybe_shutdown()  # end the wait when the worker is told to stop

        def on_error(exc: Exception, _interval: float) -> None:
            nonlocal failing
            self.pulse.breathe()
            if not failing:
                failing = True
                log.warning("broker.lost", error=str(exc), next="running tasks go on; trying again until it is back")

        connection = conn.ensure_connection(on_error, None, callback=still_trying, **_RECONNECT)
        self.pulse.breathe()
        self.pulse.ask()
        if failing:
            log.info("broker.regained")
        self._on_connected()  # the broker may have lost our presence; do not wait for the next heartbeat
        return connection


def end_worker(exc: Exception) -> None:
    """Have the worker end soon; what is not in the journal stays in the inbox."""
    # The cause is a full or broken disk; a traceback would not say more.
    log.error("journal.failed", error=str(exc), next="the worker ends; messages stay")
    state.should_stop = os.EX_IOERR  # type: ignore[assignment]  # the stubs know None only


def put_aside(guard: Guard, handover: Handover, item: bytes, problem: str) -> None:
    """Take note of an item that is no message; where the journal cannot, the item stays and the worker ends."""
    try:
        guard.malformed(item, problem)
    except JournalUnusable as exc:
        end_worker(exc)
    else:
        handover.settle(item)


class PulseStep(bootsteps.StartStopStep):
    """Ticks once a second on the consumer's own timer, so that a loop which hangs is seen to."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    interval = 1.0

    def __init__(self, consumer: HostConsumer, **kwargs: Any) -> None:
        self._entry: Any = None
        super().__init__(consumer, **kwargs)

    def start(self, consumer: HostConsumer) -> None:
        self.act(consumer)
        self._entry = consumer.timer.call_repeatedly(self.interval, self.act, (consumer,))

    def stop(self, consumer: HostConsumer) -> None:
        if self._entry is not None:
            consumer.timer.cancel(self._entry)
            self._entry = None

    def act(self, consumer: HostConsumer) -> None:
        consumer.beat()


class DueStep(PulseStep):
    """Asks the journal for runs whose time has come, and sends what Flower is to hear, four times a second."""

    interval = _DUE_SECONDS

    def act(self, consumer: HostConsumer) -> None:
        consumer.tick()


def make_app(host: str, broker: Address, **channel_options: Any) -> Celery:
    """Return the Celery app of a host's worker; `channel_options` are those of `workers.host.transport.Channel`."""
    queue = kombu.Queue(names.queue(host), kombu.Exchange(""), names.queue(host), no_declare=True)
    return broker_app.make(
        f"fleet-{host}",
        broker=broker,
        transport="workers.host.transport:Transport",
        transport_options={
            "client_name": f"fleet-{host}",
            "fanout_prefix": names.fanout_prefix(host),
            "polling_interval": 5,  # how long a BLMOVE waits; an idle host asks that seldom
            **channel_options,
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
        worker_timer_precision=0.25,
    )


def make_worker(app: Celery, host: str, *, concurrency: int, listed: bool, **parts: Any) -> Any:
    """Return Celery's worker on the host's queue; `parts` are those of `HostConsumer`."""
    return app.Worker(
        hostname=names.worker_node(host),
        pool="threads",
        concurrency=concurrency,
        consumer_cls=partial(HostConsumer, **parts),
        without_gossip=True,
        without_mingle=True,
        # Celery's own heartbeat and events, which are for Flower
        without_heartbeat=not listed,
        heartbeat_interval=10,  # Flower calls a worker offline after two of these
        task_events=listed,
        quiet=True,
    )
