"""The inventory key: this host's containers as everybody may read them, for as long as somebody keeps it fresh."""

import json
from datetime import timedelta

import redis

from fleet import names
from fleet.clock import BrokerClock
from fleet.contracts.containers import Container

#: The key outlives two missed syncs; after that the inventory is unknown.
TTL_INTERVALS = 3


class InventoryKey:
    """Writes `fleet:inventory:X`."""

    def __init__(self, client: "redis.Redis", *, host: str, interval: timedelta, clock: BrokerClock) -> None:
        self._client = client
        self._key = names.inventory(host)
        self._ttl = max(1, int(interval.total_seconds() * TTL_INTERVALS))
        self._clock = clock

    def write(self, containers: tuple[Container, ...]) -> None:
        """Write all containers of the host; raises redis-py's errors when the broker is away."""
        record = {"at": self._clock.now(), "containers": [c.model_dump(mode="json") for c in containers]}
        self._client.set(self._key, json.dumps(record), ex=self._ttl)
