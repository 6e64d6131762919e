"""Leaving: how a session says goodbye, in this order, whatever has ended it.

Nothing new is begun any more; what was taken and has not begun goes back to the queue; the host signs off; the last
words go out, for a moment. What fails on the way is done by the next start. A session that was superseded leaves the
signing off to its successor, who would be taken for gone.
"""

import sqlite3
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import redis

from fleet import logs
from fleet.contracts.reports import Kind
from workers.host.children import Children
from workers.host.dismissal import Dismissal
from workers.host.heartbeat import HeartbeatWriter
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.recovery import hand_back
from workers.host.sender import Sender
from workers.host.store import Store
from workers.host.streams import Streams

log = logs.get(__name__)

#: How long a clean stop tries to hand the last reports to the broker.
_FAREWELL = timedelta(seconds=1.5)


class Stops(Protocol):
    """A thread of the session."""

    def stop(self) -> None: ...


class Leave:
    """The end of one session."""

    def __init__(
        self,
        *,
        host: str,
        link: "redis.Redis",
        inboxes: Sequence[str],
        store: Store,
        journal: Journal,
        outbox: Outbox,
        heartbeat: HeartbeatWriter,
        dismissal: Dismissal,
        at_work: Sequence[Stops],
        streams: Streams,
        sender: Sender,
        children: Children,
    ) -> None:
        """What is `at_work` is stopped first, in this order."""
        self._host = host
        self._link = link
        self._inboxes = inboxes
        self._store = store
        self._journal = journal
        self._outbox = outbox
        self._heartbeat = heartbeat
        self._dismissal = dismissal
        self._at_work = at_work
        self._streams = streams
        self._sender = sender
        self._children = children
        self._taken = threading.Lock()

    def take(self) -> None:
        """Stop all parts and say goodbye, once; the rest of the work goes back to where it came from."""
        if not self._taken.acquire(blocking=False):
            return
        for thread in self._at_work:
            thread.stop()
        try:
            hand_back(self._journal, self._link, host=self._host, inboxes=self._inboxes)
            if not self._dismissal.superseded_by:
                self._heartbeat.clear()
        except (redis.RedisError, sqlite3.Error) as exc:
            log.warning("worker.unclean", error=str(exc), next="the next start does the rest")
        try:
            if not self._dismissal.superseded_by:
                self._outbox.report(Kind.HOST_DEREGISTERED)
            self._store.sync()
        except sqlite3.Error as exc:  # often the very reason to end
            log.warning("outbox.unwritable", error=str(exc), next="the sign-off is not on record")
        self._streams.stop(timeout=_FAREWELL)
        self._sender.stop(timeout=_FAREWELL)
        self._children.close()
        log.info("worker.stopped", host=self._host)
