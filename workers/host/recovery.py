"""Recovery: what a new session of a host does about the runs that the former one left unfinished.

The former session is over (the lock on the host's state proves it), so nobody else will finish them:

- accepted, not begun: the message goes back to the front of the queue and runs as if it had just come;
- begun, not finished: nobody can say whether it had its effect, so it is never begun again by itself; it ends as failed
  with the kind `interrupted`.
"""

from typing import Any

import redis

from fleet import logs, names
from workers.host.journal import Journal

log = logs.get(__name__)


def recover(journal: Journal, client: "redis.Redis", *, host: str) -> None:
    """Settle all unfinished runs; raises redis-py's errors, and may be called again after them.

    A message is in the queue before its row is forgotten: killed in between, the next start finds both, and the copy in
    the queue is recognised by the row.
    """
    queue: Any = names.queue(host)
    for run_id, item in journal.waiting():
        client.rpush(queue, item)
        journal.hand_back(run_id)
        log.info("run.returned", run=run_id, next="it was accepted and had not begun; it runs now")
    for claim in journal.interrupted():
        journal.fail(
            claim,
            kind="interrupted",
            message="the worker ended while it ran; whether it had its effect is not known",
            duration_seconds=0.0,
        )
        log.warning("run.interrupted", run=claim.run_id, task=claim.task, next="look before you push it again")
