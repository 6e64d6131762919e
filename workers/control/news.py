"""News: whose lists have reports that are not taken in, in the order in which they get their turn.

`fleet:reports:dirty` names them. A mark that was taken by somebody who died is made good by a look at the lists
themselves: at every list there is when the lease is gained, and at the known senders' every 30 s.
"""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import redis
from redis.client import NEVER_DECODE
from sqlalchemy import Engine

from fleet import db, names
from workers.control import cursors
from workers.control.batches import Batch

_SWEEP_SECONDS = 30.0
#: Marks that are taken, and lists that are looked at, at once.
_MARKS = 1_000


class News:
    """The senders with news, as one control worker knows."""

    def __init__(self, *, engine: Engine, client: "redis.Redis") -> None:
        self._engine = engine
        self._client = client
        #: senders with news and since when (monotonic), in the order in which they get their turn
        self._pending: dict[str, float] = {}
        #: monotonic; None: all lists have to be looked at
        self._swept_at: float | None = None

    def __bool__(self) -> bool:
        return bool(self._pending)

    def senders(self, limit: int) -> list[str]:
        """Return those who have waited longest."""
        return list(islice(self._pending, limit))

    def lag(self) -> float:
        """Return for how long the sender that waits longest has had reports that are not taken in; 0 where none waits.

        May be asked from another thread.
        """
        try:
            return max((time.monotonic() - since for since in list(self._pending.values())), default=0.0)
        except RuntimeError:  # it has changed while it was copied: the loop is at work
            return 0.0

    def look(self) -> None:
        """Look at the lists themselves, where it is time to."""
        if self._swept_at is None:
            self.scan()
        elif time.monotonic() - self._swept_at > _SWEEP_SECONDS:
            self.sweep()

    def sweep(self) -> None:
        """Look at every known sender's list, for marks that were lost."""
        with db.session(self._engine, write=False) as session:
            senders = sorted(cursors.known_senders(session))
        for begin in range(0, len(senders), _MARKS):
            part = senders[begin : begin + _MARKS]
            with self._client.pipeline(transaction=False) as pipeline:
                for sender in part:
                    pipeline.llen(names.reports(sender))
                answers = pipeline.execute(raise_on_error=False)
            self._add(
                sender for sender, length in zip(part, answers, strict=True) if isinstance(length, int) and length
            )
        self._swept_at = time.monotonic()

    def scan(self) -> None:
        """Look for every report list there is, also of senders that were never heard of."""
        prefix = names.reports("")
        keys = self._client.scan_iter(match=f"{prefix}*", count=1_000, _type="list")
        found = (key.decode("utf-8", "replace") if isinstance(key, bytes) else key for key in keys)
        self._add(sender for sender in (key.removeprefix(prefix) for key in found) if names.is_sender(sender))
        self._swept_at = time.monotonic()

    def take_marks(self) -> list[bytes]:
        """Take the marks that there are; return those that name nobody who could report."""
        if len(self._pending) >= _MARKS:
            return []
        command: Any = self._client.execute_command
        marks = command("SPOP", names.REPORTS_DIRTY, _MARKS, **{NEVER_DECODE: True}) or ()
        senders = {mark: mark.decode("utf-8", "replace") for mark in marks}
        self._add(sender for sender in senders.values() if names.is_sender(sender))
        return [mark for mark, sender in senders.items() if not names.is_sender(sender)]

    def drop(self, sender: str) -> None:
        """Take somebody off whose list is empty."""
        del self._pending[sender]

    def settle(self, batches: Iterable[Batch]) -> None:
        """Take those off whose reports were taken in, or to the end where more of theirs wait."""
        for batch in batches:
            since = self._pending.pop(batch.sender, None)
            if batch.more:
                # at the end of the line; what is left has waited as long as what was taken, for all that is known
                self._pending[batch.sender] = time.monotonic() if since is None else since

    def forget(self) -> None:
        """Know nothing any more: somebody else has taken reports in meanwhile, or is about to."""
        self._pending.clear()
        self._swept_at = None

    def _add(self, senders: Iterable[str]) -> None:
        now = time.monotonic()
        for sender in senders:
            self._pending.setdefault(sender, now)
