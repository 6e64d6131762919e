"""Sending again: the very message of a run that no list of the broker holds.

Its host carries it out, or its journal recognises the run and answers for it. The message goes to the head, behind
everything that waits: one that gets lost again and again must not keep others from their turn. It is noted before it is
sent, so a crash in between costs one interval, and none sends faster than that.
"""

from collections.abc import Sequence

import redis
from sqlalchemy import Engine

from fleet import audit, clock, db, names, runs
from fleet.contracts.control import CancelRun
from fleet.models import Run
from workers.control import entries, watchers
from workers.control.voice import Voice


class Sending:
    """Sends messages again."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", voice: Voice) -> None:
        self._engine = engine
        self._client = client
        self._voice = voice

    def send(self, lost: Sequence[Run], *, now: float) -> list[Run]:
        """Send the messages of these runs again, the oldest first; return those that still waited for it."""
        if not lost:
            return []
        with db.session(self._engine) as session:
            db.take(session, db.Lock.INGEST)
            waiting = runs.mark_sent(session, [run.id for run in lost], at=clock.from_unix(now))
            events = audit.record_many(session, [entries.of_sent_again(run) for run in waiting])
        words = self._voice.words(
            (run.host_id, CancelRun(run=run.id, by=run.cancel_requested_by))
            for run in waiting
            if run.cancel_requested_by is not None  # what lost the message may have lost this, too
        )
        with self._client.pipeline(transaction=True) as pipe:
            for key, word in words:
                pipe.lpush(key, word)
            for run in waiting:
                pipe.lpush(names.queue(run.host_id), run.message or "")
            pipe.execute()
        watchers.tell(self._client, events)
        return waiting
