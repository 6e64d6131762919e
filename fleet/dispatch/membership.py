"""Membership: what the registry in the broker says of a host, and whether it may be pushed to now."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from fleet import errors
from fleet.contracts.hosts import Availability

#: Messages that may wait for one host, 256 KiB each at most; beyond, somebody pushes faster than the host ever works.
MOST_WAITING = 10_000


@dataclass(frozen=True)
class Member:
    """One accepted host, as the control plane published it."""

    labels: Mapping[str, str]
    #: one of `contracts.hosts.Availability`; a newer control plane may know more
    availability: str = Availability.ACTIVE.value

    @property
    def takes_work(self) -> bool:
        return self.availability == Availability.ACTIVE


def read(entry: str) -> Member:
    """Read an entry of the registry; what says nothing about availability is active."""
    record = json.loads(entry)
    return Member(record["labels"], record.get("availability", Availability.ACTIVE.value))


def obstacle(host: str, *, availability: str, connected: bool, waiting: int, queues: bool) -> errors.Unreachable | None:
    """Return why nothing can be pushed to this host now, or None; `queues` says that it is to wait for the host."""
    if availability != Availability.ACTIVE and not queues:
        return errors.HostNotAvailable(host, availability)
    if not connected and not queues:
        return errors.HostNotConnected(host)
    if waiting >= MOST_WAITING:
        return errors.QueueFull(host, waiting)
    return None
