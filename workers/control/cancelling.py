"""Cancelling: ends queued runs whose end was asked for, and sees to it that hosts have heard of the others.

Who asks also tells the host, on its control list. What still waits in a queue is taken out of it here, and ends at
once, also while the host is away. All else is the host's to end, and it is told again while the run goes on.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import redis
from sqlalchemy import Engine

from fleet import audit, clock, db
from fleet.contracts.control import CancelRun
from fleet.models import Run
from workers.control import judging, withdrawing
from workers.control.judging import Standing, Step
from workers.control.settling import Settling
from workers.control.voice import Voice
from workers.control.whereabouts import locate

#: How long a host has to end a run before it is told again, and then each time.
TELL_AGAIN = timedelta(seconds=30)


class Cancelling:
    """Attends to runs whose end was asked for."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", settling: Settling, voice: Voice) -> None:
        self._engine = engine
        self._client = client
        self._voice = voice
        self._settling = settling
        #: run → when its host was told last, by `clock.elapsed`
        self._told: dict[str, float] = {}

    def attend(self, wanted: Sequence[Run], standings: Mapping[str, Standing], *, now: float) -> None:
        """End those of the runs that never begin, and tell hosts again that have had time enough."""
        if not wanted:
            return
        places, reasons = locate(self._client, wanted), self._reasons(wanted)
        withdrawn, going_on = [], []
        for run in wanted:
            decision = judging.of_cancelled(run, places[run.id], standings[run.host_id], reason=reasons.get(run.id, ""))
            verdict = decision.verdict
            if decision.step is Step.WITHDRAW and verdict and withdrawing.withdraw(self._client, run, verdict):
                withdrawn.append(verdict)
            elif standings[run.host_id].connected:
                going_on.append(run)
        self._settling.settle_withdrawn(withdrawn, now=now)
        self._tell_again(going_on, reasons, now=now)

    def _tell_again(self, going_on: Sequence[Run], reasons: Mapping[str, str], *, now: float) -> None:
        moment, patience = clock.elapsed(), TELL_AGAIN.total_seconds()
        self._told = {run: told for run, told in self._told.items() if moment - told < patience}
        said = []
        for run in going_on:
            asked_at = run.cancel_requested_at
            if run.id in self._told or asked_at is None or now - asked_at.timestamp() < patience:
                continue
            told = CancelRun(run=run.id, by=run.cancel_requested_by or "", reason=reasons.get(run.id, ""))
            said.append((run.host_id, told))
            self._told[run.id] = moment
        pipe: Any
        with self._client.pipeline(transaction=False) as pipe:
            for key, word in self._voice.words(said):
                pipe.lpush(key, word)
            pipe.execute()

    def _reasons(self, wanted: Sequence[Run]) -> dict[str, str]:
        """Return why the runs are to end, out of the audit: the ledger says only who asked."""
        reasons = {}
        with db.session(self._engine, write=False) as session:
            for run in wanted:
                for event in audit.events(session, run=run.id, event="run.cancel_requested", after_id=0, limit=10):
                    if event.data.get("counts"):
                        reasons[run.id] = str(event.data.get("reason", ""))
        return reasons
