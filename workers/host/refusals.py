"""Refusals: what a worker did not take is reported, and a copy is kept among the dead letters for whoever looks at it.

What nobody has signed who may says nothing about the run that it names, so its report is of no run; one that was signed
and is refused ends its run (`Journal.refuse`).
"""

import json

import redis

from fleet import canonical, logs, names
from fleet.clock import BrokerClock
from fleet.contracts.reports import Kind
from workers.host.outbox import Outbox

log = logs.get(__name__)

#: Dead letters kept in the broker, newest first.
DEAD_LETTERS = 1000
#: How much of a refused item is kept.
DEAD_LETTER_BYTES = 8192
#: The longest detail of a refusal, in characters; it may quote what was refused.
MOST_DETAIL = 2000


def bounded(detail: str) -> str:
    """Return a detail that can be stored and is not too long."""
    return canonical.text(detail)[:MOST_DETAIL]


class Refusals:
    """Writes refusals down. Thread-safe."""

    def __init__(self, outbox: Outbox, client: "redis.Redis", *, host: str, clock: BrokerClock) -> None:
        self._outbox = outbox
        self._client = client
        self._host = host
        self._clock = clock

    def report(self, item: bytes, reason: str, detail: str, *, claimed: str = "") -> None:
        """Report an item of no run and bury it; `claimed` is the run that it says it is of. Raises sqlite3's errors."""
        detail = bounded(detail)
        log.warning("message.refused", run=claimed or None, reason=reason, detail=detail)
        data = {"reason": reason, "detail": detail, "size": len(item)}
        if claimed:
            data["run"] = canonical.text(claimed)[:100]
        self._outbox.report(Kind.MESSAGE_REFUSED, data)
        self.bury(item, reason, detail)

    def bury(self, item: bytes, reason: str, detail: str) -> None:
        """Keep a copy; the report is what counts, so a broker that is away is no obstacle."""
        letter = {
            "at": self._clock.now(),
            "reason": reason,
            "detail": detail,
            "size": len(item),
            "item": item[:DEAD_LETTER_BYTES].decode("utf-8", "backslashreplace"),
        }
        try:
            if self._client.lpush(names.dead(self._host), json.dumps(letter)) > DEAD_LETTERS:
                self._client.rpop(names.dead(self._host))
        except redis.RedisError as exc:
            log.warning("message.unburied", error=str(exc), next="its report is in the outbox; only the copy is lost")
