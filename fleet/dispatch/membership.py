"""Membership: what the registry in the broker says of a host, and whether it may be pushed to now."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from fleet import errors
from fleet.contracts.hosts import Availability
from fleet.security.identity import HostIdentity
from fleet.security.trust import Trust

#: Messages that may wait for one host, 256 KiB each at most; beyond, somebody pushes faster than the host ever works.
MOST_WAITING = 10_000


@dataclass(frozen=True)
class Member:
    """One accepted host, as the control plane published it."""

    #: by the fleet's word: who it is, and its labels
    identity: HostIdentity
    #: one of `contracts.hosts.Availability`; a newer control plane may know more
    availability: str = Availability.ACTIVE.value

    @property
    def labels(self) -> Mapping[str, str]:
        return self.identity.labels

    @property
    def takes_work(self) -> bool:
        return self.availability == Availability.ACTIVE


def read(host: str, entry: str, *, trust: Trust) -> Member:
    """Read a host's entry of the registry; what says nothing about availability is active.

    Raises `errors.NotTrusted` where the fleet has not said that this is the host.
    """
    try:
        record = json.loads(entry)
        identity = trust.host(record["credential"])
        availability = str(record.get("availability", Availability.ACTIVE.value))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise errors.NotTrusted(f"the registry's entry of host {host!r} cannot be read") from exc
    if identity.host != host:
        raise errors.NotTrusted(f"the registry names host {identity.host!r} as {host!r}")
    return Member(identity, availability)


def obstacle(host: str, *, availability: str, connected: bool, waiting: int, queues: bool) -> errors.Unreachable | None:
    """Return why nothing can be pushed to this host now, or None; `queues` says that it is to wait for the host."""
    if availability != Availability.ACTIVE and not queues:
        return errors.HostNotAvailable(host, availability)
    if not connected and not queues:
        return errors.HostNotConnected(host)
    if waiting >= MOST_WAITING:
        return errors.QueueFull(host, waiting)
    return None
