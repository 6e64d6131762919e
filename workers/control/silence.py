"""Silence: for how long this control worker has seen no sign of a host, as far as it could have seen one.

What was not watched proves nothing: after a change of the lease, an outage or a restart of the broker, or a pause of
this process, every host has its whole time again.
"""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import redis

from fleet import clock, presence
from fleet.contracts.presence import OFFLINE_AFTER

#: Looks further apart than this leave a gap in which nobody watched.
_LONGEST_GAP = timedelta(seconds=30)


class Silence:
    """Which hosts are connected, and how long the others have not been."""

    def __init__(
        self, *, offline_after: timedelta = OFFLINE_AFTER, elapsed: Callable[[], float] = clock.elapsed
    ) -> None:
        self._offline_after = offline_after.total_seconds()
        self.elapsed = elapsed
        #: host → when it was first seen missing
        self._since: dict[str, float] = {}
        self._looked_at: float | None = None
        self._broker: str | None = None
        self.connected: frozenset[str] = frozenset()

    def look(self, client: "redis.Redis", hosts: Collection[str], *, answering: Collection[str] = ()) -> None:
        """Look for signs of these hosts, besides those that are known to answer; raises redis-py's errors."""
        now = self.elapsed()
        info: Any = client.info("server")
        gap = self._looked_at is None or now - self._looked_at > _LONGEST_GAP.total_seconds()
        if gap or info["run_id"] != self._broker:  # a broker that has started anew may have lost the signs
            self.forget()
        self.connected = frozenset(presence.connected(client, hosts)).union(answering)
        missing = set(hosts) - self.connected
        self._since = {host: self._since.get(host, now) for host in missing}
        self._looked_at, self._broker = now, info["run_id"]

    def forget(self) -> None:
        """Begin anew: something came between."""
        self._since.clear()
        self._looked_at = None

    def is_silent(self, host: str) -> bool:
        """Say whether the host has been missing all the time that makes it offline."""
        since = self._since.get(host)
        return since is not None and self.elapsed() - since >= self._offline_after

    def any(self) -> bool:
        """Say whether any host is silent."""
        return any(self.is_silent(host) for host in self._since)
