"""Which sessions' inboxes may still hold messages: those since the last one that put all former ones back.

A session takes its epoch before it can do anything, so there may be any number of them that ended (a full disk, a
supervisor that tries again all night) before one consumes.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import redis
from redis.client import NEVER_DECODE

from fleet import logs, names
from workers.host.store import Store

log = logs.get(__name__)

_KEY = "reconciled"
#: Former sessions whose inboxes are looked into by a journal that remembers none.
_FORMER = 1000


class InboxMemory:
    """Remembers in the journal how far back a session has to look."""

    def __init__(self, store: Store, *, epoch: int) -> None:
        self._store = store
        self.epoch = epoch
        self._remembered = False

    def oldest(self) -> int | None:
        """Return the epoch of the oldest session whose inbox may hold something; None where nothing is known."""
        remembered = self._store.recall(_KEY)
        return int(remembered) if remembered else None

    def former(self, host: str) -> tuple[str, ...]:
        """Return the inboxes of former sessions that may hold something, the newest first."""
        oldest = self.oldest() or max(1, self.epoch - _FORMER)
        return tuple(names.inbox(host, old) for old in range(self.epoch - 1, oldest - 1, -1))

    def reconciled(self) -> None:
        """Remember that all inboxes before this session's are empty."""
        if self._remembered:
            return
        try:
            with self._store.transaction() as transaction:
                self._store.remember(transaction, _KEY, str(self.epoch))
        except sqlite3.Error as exc:
            log.warning("inbox.unremembered", error=str(exc), next="the next session looks further back")
        else:
            self._remembered = True


def restore(client: "redis.Redis", queue: str, inboxes: Sequence[str]) -> None:
    """Put back into the queue, in order, what lies in inboxes."""
    with client.pipeline(transaction=False) as pipe:
        for inbox in inboxes:
            pipe.llen(inbox)
        lengths = pipe.execute()
    for inbox, length in zip(inboxes, lengths, strict=True):
        # The newest lies at the left: moved first, it ends up behind the older ones.
        while length and put_back(client, queue, inbox):
            pass


def put_back(client: "redis.Redis", queue: str, inbox: str) -> bool:
    """Put the newest item of an inbox back to the front of the queue; return whether there was one."""
    command: Any = client.execute_command
    # Foreign bytes: a client that decodes the answer would fail on them, and end every session anew.
    return command("LMOVE", inbox, queue, "LEFT", "RIGHT", **{NEVER_DECODE: True}) is not None
