"""The hand-over: how messages leave the inbox once the journal has them, and how a newer session is kept out.

An inbox belongs to one session, and removing a message from it is one command of the broker: either this session
removes it, or a newer one has put it back into the queue. So

- a run that must not begin twice is claimed durably first; then its message is removed, and only if the broker says
  that it was there, and the journal has written down that it is not any more, does the run begin (`secure`);
- all others begin at once, and their messages are removed in the background, many at a time, after one sync of the
  journal. Cut off in between, the same message comes again and is recognised.

When the consumer connects anew, it puts back what is still in the inbox, what the journal has included. So a message
that is not in the inbox any more is looked for in the queue, as long as no newer session has begun.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import redis

from fleet import logs, names
from workers.host.journal import Journal
from workers.host.strays import LOOK_SECONDS, Strays

log = logs.get(__name__)

_RETRY = timedelta(milliseconds=200)
#: Messages wait this long for company: one sync and one round trip for all of them.
_GATHER_SECONDS = 0.02
#: Messages that are removed in one round trip.
_MOST_AT_ONCE = 200


class Superseded(Exception):
    """A newer session of this host has the message."""


class Handover:
    """The messages of one session that are in the journal and still in the inbox. Thread-safe."""

    def __init__(
        self,
        client: "redis.Redis",
        journal: Journal,
        *,
        host: str,
        epoch: int,
        on_unusable: Callable[[Exception], None],
    ) -> None:
        self._client = client
        self._journal = journal
        self._inbox, self._queue = names.inbox(host, epoch), names.queue(host)
        self._epoch_key = names.epoch(host)
        self._epoch = epoch
        self._on_unusable = on_unusable
        self._lock = threading.Lock()
        #: run id → item, of messages that `secure` has to remove
        self._unsecured: dict[str, str] = {}
        #: (run id, item) of messages that the thread has to remove; no run id where there is nothing to note
        self._settling: list[tuple[str | None, bytes]] = []
        self._strays = Strays(client, host=host, inbox=self._inbox)
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._news = threading.Event()
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        """Try once more to remove what is to be removed; what is left comes again and is recognised."""
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())
        else:
            self.stopped.set()

    def hold(self, run_id: str, item: str) -> None:
        """Leave a message in the inbox until `secure`."""
        with self._lock:
            self._unsecured[run_id] = item

    def holds(self, run_id: str) -> bool:
        """Return whether the message of the run stays in the inbox until `secure`."""
        with self._lock:
            return run_id in self._unsecured

    def has(self, item: bytes) -> bool:
        """Return whether this very message is still to be removed from the inbox: then a copy may be it, once more."""
        return item in self._known()

    def release(self, run_id: str) -> None:
        """Have the message of a run removed that will not begin after all."""
        with self._lock:
            item = self._unsecured.pop(run_id, None)
        if item is not None:
            self.settle(item.encode(), run_id=run_id)

    def settle(self, item: bytes, *, run_id: str | None = None) -> None:
        """Have a message removed soon; it is in the journal, or was refused for good."""
        with self._lock:
            self._settling.append((run_id, item))
        self._news.set()

    def secure(self, run_id: str) -> None:
        """Remove the message of a claimed run, waiting for a broker that is away.

        Raises `Superseded` where it was not there any more and a newer session has begun, or where this one ends before
        that is known: then the run must not begin here.
        """
        with self._lock:
            item = self._unsecured.get(run_id)
        if item is None:
            return
        try:
            self._remove(run_id, item.encode())
            self._journal.handed_over([run_id])  # a copy of the message that comes now does not say that it never began
        finally:
            with self._lock:  # not before: a copy that comes meanwhile is this very message
                self._unsecured.pop(run_id, None)

    def _remove(self, run_id: str, item: bytes) -> None:
        failed_before = False
        while True:
            try:
                # Of an earlier try only the answer may have been lost; nobody but a newer session takes what is mine.
                if self._client.lrem(self._inbox, 1, item) or self._take_back([item]):  # type: ignore[arg-type]
                    return
                raise Superseded(run_id)
            except redis.RedisError as exc:
                if not failed_before:
                    log.warning("inbox.unsettled", run=run_id, error=str(exc), next="the task begins after that")
                failed_before = True
                if self._stopping.wait(_RETRY.total_seconds()):
                    raise Superseded(run_id) from exc

    def _take_back(self, items: Sequence[bytes]) -> bool:
        """Remove messages from the inbox or, where the consumer has put them back, from the queue.

        Return whether that was for this session to do: where a newer one has begun, nothing is removed. Where there is
        no epoch at all, the broker has lost everything, these messages with it. Raises redis-py's errors.
        """
        pipe: Any
        with self._client.pipeline(transaction=True) as pipe:
            while True:
                pipe.watch(self._epoch_key)
                newest = pipe.get(self._epoch_key)
                if newest is not None and int(newest) > self._epoch:
                    return False
                pipe.multi()
                for item in items:  # of both at once: the consumer moves messages between them
                    pipe.lrem(self._inbox, 1, item)
                    pipe.lrem(self._queue, 1, item)
                try:
                    pipe.execute()
                except redis.WatchError:
                    continue  # a newer session, most likely
                return True

    def _run(self) -> None:
        last_try = False
        while not last_try:
            wait = self._look_at - time.monotonic()
            if wait <= 0:
                self._look_for_strays()
            elif self._news.wait(wait):
                self._stopping.wait(_GATHER_SECONDS)
                self._news.clear()
                last_try = self._stopping.is_set()
                while self._settle_some():
                    pass
        self.stopped.set()

    def _look_for_strays(self) -> None:
        self._look_at = time.monotonic() + LOOK_SECONDS
        try:
            self._strays.look(self._known)
        except redis.RedisError as exc:
            log.debug("inbox.unread", error=str(exc))  # the consumer says that the broker is away

    def _known(self) -> set[bytes]:
        """Return the messages that are in the inbox because this session still needs them there."""
        with self._lock:
            return {item.encode() for item in self._unsecured.values()} | {item for _run, item in self._settling}

    def _settle_some(self) -> bool:
        """Remove a part of what waits; False when nothing is left, or nothing can be done now."""
        with self._lock:
            part = self._settling[:_MOST_AT_ONCE]
        if not part:
            return False
        try:
            self._journal.sync()
            with self._client.pipeline(transaction=False) as pipe:
                for _run_id, item in part:
                    pipe.lrem(self._inbox, 1, item)  # type: ignore[arg-type]  # bytes are sent as they are
                removed = pipe.execute()
            # Of a run that is held, this was a copy.
            lost = [
                item
                for (run_id, item), count in zip(part, removed, strict=True)
                if not count and not (run_id and self.holds(run_id))
            ]
            if lost:
                self._take_back(lost)
            self._journal.handed_over([run_id for run_id, _item in part if run_id and not self.holds(run_id)])
        except redis.RedisError as exc:
            log.warning("inbox.unsettled", error=str(exc), next="the messages stay, and are recognised")
            self._news.set()
            self._stopping.wait(_RETRY.total_seconds())
            return False
        except sqlite3.Error as exc:
            self._on_unusable(exc)
            return False
        with self._lock:
            del self._settling[: len(part)]
        return True
