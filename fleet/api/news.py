"""News: whoever waits for something of a run is woken when the control plane has recorded it.

What is published is a hint and wakes only; what has happened is read from the database. A hint that is missed, or a
broker that is away, costs the waiting a second or two.
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from fleet import errors, logs, names
from fleet.address import Address
from fleet.broker.connection import connect

log = logs.get(__name__)

#: How long whoever waits sleeps at most.
LOOK_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_POLL_SECONDS = 1.0
#: Requests that may wait at once, streams among them: of everybody, and of one principal.
MOST_WAITING, MOST_OF_ONE = 256, 64


class TooManyWaiting(errors.Unreachable):
    """More requests wait than this process has room for."""

    code = "too_many_waiting"


class News:
    """One subscription for the whole process. Start and stop it in the event loop that waits."""

    def __init__(self, broker: Address) -> None:
        self._broker = broker
        self._thread = threading.Thread(target=self._listen, name="news", daemon=True)
        self._stopping = threading.Event()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        #: how many wait, by principal
        self._counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_over(self) -> bool:
        """Say whether the process ends, and nobody should wait any longer."""
        return self._stopping.is_set()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Let everybody who waits go on, once; may be called twice."""
        self._stopping.set()
        for run_id in list(self._waiting):
            self._wake(run_id)

    def join(self) -> None:
        """Wait for the end of the thread, after `stop`."""
        self._thread.join(2 * _POLL_SECONDS)

    def require_room(self, principal: str) -> None:
        """Raise `TooManyWaiting` where no more requests, or none of this principal's, may wait."""
        if self._counts[principal] >= MOST_OF_ONE:
            raise TooManyWaiting(f"too many requests of {principal} wait already", remedy="try again in a while")
        if self._counts.total() >= MOST_WAITING:
            raise TooManyWaiting("too many requests wait already", remedy="try again in a while")

    @contextmanager
    def about(self, run_id: str, *, principal: str) -> Iterator[asyncio.Event]:
        """Give an event that is set at news of a run; raises `TooManyWaiting`."""
        self.require_room(principal)
        event = asyncio.Event()
        self._waiting.setdefault(run_id, set()).add(event)
        self._counts[principal] += 1
        try:
            yield event
        finally:
            self._counts -= Counter({principal: 1})  # and none of those who have gone is remembered
            others = self._waiting[run_id]
            others.discard(event)
            if not others:
                del self._waiting[run_id]

    async def next(self, event: asyncio.Event, *, seconds: float) -> None:
        """Wait for news, so long at most."""
        if self.is_over:
            return
        try:
            async with asyncio.timeout(min(seconds, LOOK_SECONDS)):
                await event.wait()
        except TimeoutError:
            pass
        event.clear()

    def _wake(self, run_id: str) -> None:
        for event in self._waiting.get(run_id, ()):
            event.set()

    def _listen(self) -> None:
        failing = False
        while not self._stopping.is_set():
            client: Any = connect(self._broker, name="api-news", connections=2)
            try:
                with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(names.WATCH)
                    failing = False
                    while not self._stopping.is_set():
                        self._pass_on(pubsub.get_message(timeout=_POLL_SECONDS))
            except redis.RedisError as exc:
                if not failing:
                    log.warning("news.missed", error=str(exc), consequence="whoever waits looks every two seconds")
                failing = True
                self._stopping.wait(_RETRY_SECONDS)
            finally:
                client.close()

    def _pass_on(self, message: "dict[str, str] | None") -> None:
        if message is None or self._loop is None:
            return
        try:
            run_id = json.loads(message["data"]).get("run")
        except (ValueError, AttributeError):
            return
        if isinstance(run_id, str) and run_id in self._waiting:
            self._loop.call_soon_threadsafe(self._wake, run_id)
