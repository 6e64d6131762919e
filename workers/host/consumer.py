"""The consumer: Celery's, with the guard before it and the journal's word as the acknowledgement."""

import os
from collections.abc import Callable
from typing import Any

import redis
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer import Consumer

from fleet import logs
from workers.host.guard import Guard, JournalUnusable
from workers.host.pulse import Pulse

log = logs.get(__name__)

#: Wait before the first try to reconnect, what each further one adds, and the longest, in seconds. Celery's own 2, 2
#: and 30 leave a host idle for half a minute after a broker restart.
_RECONNECT = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 2.0}


class HostConsumer(Consumer):
    """Consumes the host's queue: guard, journal, inbox, then Celery's own strategy and pool."""

    def __init__(self, *args: Any, guard: Guard, pulse: Pulse, on_connected: Callable[[], None], **kwargs: Any) -> None:
        self._guard = guard
        self._pulse = pulse
        self._on_connected = on_connected
        super().__init__(*args, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        deliver = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                form = (message.content_type, message.content_encoding)
                run_id = self._guard.admit(message.item, message.headers, message.body, form=form)
            except JournalUnusable as exc:
                end_worker(exc)
                return
            try:
                message.channel.settle(message.item)
            except redis.RedisError as exc:
                # The journal has it, so it must run now; the copy in the inbox is recognised when it comes again.
                log.warning("inbox.unsettled", run=run_id, error=str(exc))
            if run_id is None:
                message.ack()
                return
            try:
                deliver(message)
            except Exception as exc:
                log.exception("run.undelivered", run=run_id)
                try:
                    self._guard.give_up(run_id, f"{type(exc).__name__}: {exc}")
                except JournalUnusable as unusable:
                    end_worker(unusable)

        return on_task_received

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying often; Celery's own waits grow to 30 s."""
        failing = False

        def on_error(exc: Exception, _interval: float) -> None:
            nonlocal failing
            if not failing:
                failing = True
                log.warning("broker.lost", error=str(exc), next="running tasks go on; trying again until it is back")

        connection = conn.ensure_connection(on_error, None, callback=_stop_if_asked, **_RECONNECT)
        if failing:
            log.info("broker.regained")
        self._on_connected()  # the broker may have lost our presence; do not wait for the next heartbeat
        return connection


def put_aside(guard: Guard, item: bytes, problem: str) -> bool:
    """Take note of an item that is no message; False where the journal cannot, and the worker ends."""
    try:
        guard.malformed(item, problem)
    except JournalUnusable as exc:
        end_worker(exc)
        return False
    return True


def end_worker(exc: JournalUnusable) -> None:
    """Have the worker end soon; what is not in the journal stays in the inbox."""
    # The cause is a full or broken disk; a traceback would not say more.
    log.error("journal.failed", error=str(exc), next="the worker ends; messages stay")
    state.should_stop = os.EX_IOERR  # type: ignore[assignment]  # the stubs know None only


def _stop_if_asked() -> None:
    """End the wait for the broker when the worker is told to stop."""
    state.maybe_shutdown()


class PulseStep(bootsteps.StartStopStep):
    """Ticks once a second on the consumer's own timer, so that a loop which hangs is seen to."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: HostConsumer, **kwargs: Any) -> None:
        self._entry: Any = None
        super().__init__(consumer, **kwargs)

    def start(self, consumer: HostConsumer) -> None:
        pulse = consumer._pulse  # noqa: SLF001 - the step is the consumer's own
        pulse.tick()
        self._entry = consumer.timer.call_repeatedly(1.0, pulse.tick)

    def stop(self, consumer: HostConsumer) -> None:
        if self._entry is not None:
            consumer.timer.cancel(self._entry)
            self._entry = None
