"""Settling: ends runs that no host will end, and tells whoever waits for them.

The ledger comes first, with its audit event; then the result where callers wait for it, never over one that a host
wrote; then the run's message is let go. Killed in between, `resume` of whoever comes next does the rest: what is still
to be told are runs that have ended and have a message, and notes of messages that were withdrawn.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import redis
from sqlalchemy import Engine
from sqlmodel import col, select

from fleet import approvals, audit, clock, db, names, runs, sessions
from fleet.broker import results
from fleet.models import Run
from fleet.runs import Verdict
from workers.control import entries, watchers, withdrawing
from workers.control.voice import Voice

#: Results written in one round trip.
_PAGE = 200


class Settling:
    """Ends runs; each call is complete in itself and may be repeated."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", voice: Voice) -> None:
        self._engine = engine
        self._client = client
        self._voice = voice

    def settle(self, verdicts: Iterable[Verdict], *, now: float) -> list[Run]:
        """End runs that may be ended so; return those that are. `now` is the broker's time."""
        by_run = {verdict.run: verdict for verdict in verdicts}
        if not by_run:
            return []
        with db.session(self._engine) as session:
            db.take(session, db.Lock.INGEST)
            settled = runs.settle(session, by_run, at=clock.from_unix(now))
            approvals.settle(session, settled)
            sessions.settle(session, settled)
            events = audit.record_many(session, [entries.of_ended(run) for run in settled])
        self.deliver(settled)
        watchers.tell(self._client, events)
        return settled

    def settle_withdrawn(self, verdicts: Sequence[Verdict], *, now: float) -> list[Run]:
        """End runs whose messages have been taken out of their queues, and drop the notes of that."""
        settled = self.settle(verdicts, now=now)
        withdrawing.forget(self._client, [verdict.run for verdict in verdicts])
        return settled

    def deliver(self, settled: Sequence[Run]) -> None:
        """Write the results of runs that the control plane has ended, then let their messages go."""
        if not settled:
            return
        answers: list[Any]
        ours = self._voice.results(map(_meta, settled))
        with self._client.pipeline(transaction=False) as pipe:
            for run, result in zip(settled, ours, strict=True):
                # a host that was faster has the last word
                pipe.set(names.result(run.id), result, nx=True, ex=results.RESULT_TTL_SECONDS)
                pipe.get(names.result(run.id))
            answers = pipe.execute()
            for run, written, result in zip(settled, answers[1::2], ours, strict=True):
                # also where it was there already: whoever wrote it may have been killed before saying so
                pipe.publish(names.result(run.id), written or result)
            pipe.execute()
        with db.session(self._engine) as session:
            runs.let_go(session, [run.id for run in settled])

    def resume(self, *, now: float) -> None:
        """Do what somebody began and was cut off in."""
        self.settle_withdrawn(withdrawing.noted(self._client), now=now)
        while True:
            with db.session(self._engine, write=False) as session:
                query = select(Run).where(col(Run.state).in_(runs.FINAL), col(Run.message).is_not(None)).limit(_PAGE)
                untold = list(session.exec(query).all())
            if not untold:
                return
            self.deliver(untold)


def _meta(run: Run) -> dict[str, Any]:
    error = run.error or {}
    return results.failure_meta(
        run.id,
        state=run.state,
        kind=str(error.get("kind", "")),
        message=str(error.get("message", "")),
        date_done=(run.finished_at or clock.now()).isoformat(),
    )
