"""The control list: what the control plane says to the worker itself, read by a thread and connection of its own.

A full pool stops reading the queue, so such words never travel through it. A message is looked at, acted upon and only
then removed; every action may be repeated without harm.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import redis
from redis.client import NEVER_DECODE

from fleet import logs, names

log = logs.get(__name__)

#: How long one read waits; less than the connection's time-out, and the longest a stop has to wait.
_BLOCK_SECONDS = 1
_RETRY = timedelta(seconds=1)

Handler = Callable[[Mapping[str, Any]], None]


class ControlList:
    """A thread that gives each control message to the handler of its `kind`."""

    def __init__(self, client: "redis.Redis", handlers: Mapping[str, Handler], *, host: str) -> None:
        self._client = client
        self._handlers = handlers
        self._key = names.control(host)
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-list", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())

    def _run(self) -> None:
        command: Any = self._client.execute_command
        failing = False
        while not self._stopping.is_set():
            try:
                # Moving the oldest item onto itself waits for one and leaves it where it is.
                # Foreign bytes: a client that decodes would fail on them, and end this thread.
                item = command("BLMOVE", self._key, self._key, "RIGHT", "RIGHT", _BLOCK_SECONDS, **{NEVER_DECODE: True})
                if item is not None:
                    self.handle(item)
                    self._client.lrem(self._key, -1, item)
            except redis.RedisError as exc:
                if not failing:
                    log.warning("control.lost", error=str(exc), next="trying again until the broker is back")
                failing = True
                self._stopping.wait(_RETRY.total_seconds())
            else:
                failing = False
        self.stopped.set()

    def handle(self, item: str | bytes) -> None:
        """Act upon one message; what cannot be read is logged and dropped."""
        try:
            message = json.loads(item)
            handler = self._handlers[message["kind"]]
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            log.warning("control.refused", error=repr(exc), next="the message is dropped")
            return
        try:
            handler(message)
        except sqlite3.Error as exc:
            log.warning("control.failed", kind=message["kind"], error=str(exc), next="the message is dropped")
        except Exception:
            log.exception("control.failed", kind=message["kind"])
