"""Strays: messages that the broker put into this session's inbox for a connection that nobody reads any more.

A connection that broke without a word stays in the broker for a while, and is still served: it takes the next message.
What a session finds in its inbox when it connects anew, it puts back (`workers.host.transport`); what comes into it
after that is noticed here, because nobody in this session knows of it.
"""

from collections.abc import Callable
from typing import Any

import redis
from redis.client import NEVER_DECODE

from fleet import logs, names

log = logs.get(__name__)

#: Between two looks. What was handed over a moment ago is known before the next one.
LOOK_SECONDS = 5.0


class Strays:
    """Looks into one inbox from time to time."""

    def __init__(self, client: "redis.Redis", *, host: str, inbox: str) -> None:
        self._client = client
        self._queue = names.queue(host)
        self._inbox = inbox
        self._suspected: set[bytes] = set()

    def look(self, known: Callable[[], set[bytes]]) -> int:
        """Put back what was unknown at two looks in a row, and return how much; raises redis-py's errors.

        Should it be known after all (an event loop that hung, say), it comes again and is recognised.
        """
        command: Any = self._client.execute_command
        found = set(command("LRANGE", self._inbox, 0, -1, **{NEVER_DECODE: True}))
        unknown = found - known()
        strays = unknown & self._suspected
        self._suspected = unknown - strays
        for item in strays:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.rpush(self._queue, item)
                pipe.lrem(self._inbox, 1, item)
                pipe.execute()
        if strays:
            log.warning(
                "inbox.strays", count=len(strays), next="they were handed to a dead connection; back in the queue"
            )
        return len(strays)
