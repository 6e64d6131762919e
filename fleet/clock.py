"""Clock: the time that counts.

Hosts' clocks lie; expiry is decided by the broker's clock (Redis TIME). A `BrokerClock` keeps the difference between
the two, measured by whoever has a connection in hand, and answers without a round trip.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

#: Linux has a clock that counts time asleep, too; elsewhere CLOCK_MONOTONIC is the nearest there is.
_ELAPSED: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: Moments that have a date wherever they are shown: the last hours of UTC's calendar are beyond that of Tokyo.
_EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


def now() -> datetime:
    """Return the present in UTC, with a time zone."""
    return datetime.now(UTC)


def elapsed() -> float:
    """Return seconds that only ever grow, and go on while the machine sleeps; only differences mean something.

    Python's monotonic clock stands still while a Linux machine is suspended; what must run out meanwhile goes by this.
    """
    return time.clock_gettime(_ELAPSED)


def from_unix(seconds: float) -> datetime:
    """Return a moment; raises ValueError, OverflowError or OSError for one that is not on every calendar."""
    moment = datetime.fromtimestamp(seconds, UTC)
    if not _EARLIEST <= moment <= _LATEST:
        raise OverflowError("a moment beyond the calendar")
    return moment


def seconds(broker_time: tuple[int, int]) -> float:
    """Return an answer of the broker's TIME, (unix seconds, microseconds), as unix seconds."""
    whole, microseconds = broker_time
    return float(whole + microseconds / 1e6)


def of_broker(client: Any) -> float:
    """Ask a broker for its time, and return it in unix seconds; raises redis-py's errors."""
    return seconds(client.time())


class BrokerClock:
    """The broker's time, extrapolated from the latest measurement by the monotonic clock.

    Before the first measurement it gives the local time. Thread-safe: the one field is replaced as a whole.
    """

    def __init__(self) -> None:
        self._measured: tuple[float, float] | None = None  # (broker's unix seconds, monotonic seconds)

    def measure(self, broker_time: tuple[int, int]) -> None:
        """Take in an answer of TIME: (unix seconds, microseconds)."""
        self._measured = (seconds(broker_time), time.monotonic())

    def now(self) -> float:
        """Return the broker's time in unix seconds."""
        if self._measured is None:
            return time.time()
        at, since = self._measured
        return at + time.monotonic() - since

    def iso(self) -> str:
        """Return the broker's time as ISO 8601 in UTC, the way results carry it."""
        return from_unix(self.now()).isoformat()

    def skew(self) -> float:
        """Return how far the local clock is ahead of the broker's, in seconds."""
        return time.time() - self.now()
