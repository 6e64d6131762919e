"""Withdrawing: takes a message out of its host's queue, so that the run never begins.

The removal and a note of it are one transaction of the broker: whoever is killed before the ledger has it leaves the
note, and the next one ends the run for the same reason. So no message ever vanishes without somebody knowing why.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import redis

from fleet import names
from fleet.models import Run, RunState
from fleet.runs import Verdict

#: The queue may change at the moment of the removal; one that does all the time has a host at work, who decides.
_TRIES = 10


def withdraw(client: "redis.Redis", run: Run, verdict: Verdict) -> bool:
    """Take a run's message out of the queue, with a note of the verdict; return whether it was there."""
    queue = names.queue(run.host_id)
    note = json.dumps({**asdict(verdict), "expected": sorted(verdict.expected)})
    pipe: Any
    for _ in range(_TRIES):
        with client.pipeline(transaction=True) as pipe:
            pipe.watch(queue)
            if pipe.lpos(queue, run.message) is None:
                return False
            pipe.multi()
            pipe.lrem(queue, 0, run.message)
            pipe.hset(names.WITHDRAWN, run.id, note)
            try:
                pipe.execute()
            except redis.WatchError:
                continue
            return True
    return False


def noted(client: "redis.Redis") -> list[Verdict]:
    """Return the verdicts of withdrawals that the ledger may not have."""
    found: Any = client.hgetall(names.WITHDRAWN)
    verdicts = []
    for note in found.values():
        read = json.loads(note)
        expected = frozenset(RunState(state) for state in read.pop("expected"))
        verdicts.append(Verdict(**{**read, "state": RunState(read["state"])}, expected=expected))
    return verdicts


def forget(client: "redis.Redis", run_ids: Sequence[str]) -> None:
    """Drop notes: the ledger has it."""
    if run_ids:
        client.hdel(names.WITHDRAWN, *run_ids)
