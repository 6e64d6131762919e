"""Refusals: what a worker did not take is reported, and a copy is kept among the dead letters for whoever looks at it.

What nobody has signed who may says nothing about the run that it names, so its report is of no run; one that was signed
and is refused ends its run (`Unbegun.refuse`). Of a flood every refusal is counted, and not every one is written down:
whoever can write to a list of this host could fill its disk and the audit otherwise.
"""

import json
import threading

import redis

from fleet import canonical, logs, names
from fleet.clock import BrokerClock
from fleet.contracts.reports import Kind
from workers.host.allowance import Allowance
from workers.host.outbox import Outbox

log = logs.get(__name__)

#: Dead letters kept in the broker, newest first.
DEAD_LETTERS = 1000
#: How much of a refused item is kept.
DEAD_LETTER_BYTES = 8192
#: Refusals that are reported one by one: so many at once, and so many a second for long.
_AT_ONCE, _A_SECOND = 200.0, 1.0
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
        self._lock = threading.Lock()
        self._allowance = Allowance(at_once=_AT_ONCE, a_second=_A_SECOND)
        self._unreported = 0

    def report(self, item: bytes, reason: str, detail: str, *, claimed: str = "") -> None:
        """Report an item of no run and bury it; `claimed` is the run that it says it is of. Raises sqlite3's errors."""
        with self._lock:
            unreported = self._unreported
            if not self._allowance.take():
                self._unreported += 1
                return
            self._unreported = 0
        detail = bounded(detail)
        log.warning("message.refused", run=claimed or None, reason=reason, detail=detail)
        data = {"reason": reason, "detail": detail, "size": len(item)}
        if claimed:
            data["run"] = canonical.text(claimed)[:100]
        if unreported:
            data["unreported_before"] = unreported
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
