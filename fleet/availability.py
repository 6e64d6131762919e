"""Availability: whether a host is to take new work, as somebody decided.

The database has the decision, the registry tells it to those who push, and the host's control list to the host, which
obeys at its next look and reports it. What a broker loses of that is written anew by `remind` and by the registry.
"""

from datetime import timedelta
from typing import Any

import redis
from sqlmodel import Session

from fleet import audit, inventory, names, presence
from fleet.contracts.control import SetAvailability
from fleet.contracts.hosts import Availability
from fleet.models import Membership


def set(  # noqa: A001 - read as availability.set
    session: Session,
    client: "redis.Redis",
    host: str,
    availability: Availability,
    *,
    by: str,
    deadline: timedelta | None = None,
) -> bool:
    """Decide that a host is active, paused or draining; return whether that is new.

    `by` is a principal's name. `deadline` is how long what runs may go on on a host that is draining; then it is
    cancelled. The broker is told before the session commits, so that an outage of it fails the whole change; a commit
    that fails after it is made good by `remind`. Raises `errors.NotFound` for an unknown host, and redis-py's errors.
    """
    changed = inventory.set_availability(session, host, availability)
    until = None
    if deadline is not None:
        seconds, microseconds = _time(client)
        until = seconds + microseconds / 1e6 + deadline.total_seconds()
    audit.record(
        session,
        event="host.availability_set",
        actor=names.principal_sender(by),
        host_id=host,
        data={"availability": availability.value, "deadline": until},
    )
    inventory.publish_hosts(session, client, host)
    told = SetAvailability(availability=availability, deadline=until, by=by)
    client.lpush(names.control(host), told.model_dump_json())
    return changed


def remind(session: Session, client: "redis.Redis") -> int:
    """Tell those hosts again whose heartbeats differ from what was decided; return how many.

    The word may be on its way, or its host about to obey: it is not sent twice while the same waits to be read.
    """
    wanted = {
        host.id: Availability(host.availability)
        for host in inventory.hosts(session)
        if host.membership == Membership.ACCEPTED
    }
    beats = presence.read(client, wanted)
    differing = [host for host, beat in beats.items() if beat is not None and beat.availability is not wanted[host]]
    command: Any = client
    told = 0
    for host in differing:
        word = SetAvailability(availability=wanted[host], by="control").model_dump_json()
        if command.lpos(names.control(host), word) is None:
            client.lpush(names.control(host), word)
            told += 1
    return told


def _time(client: "redis.Redis") -> tuple[int, int]:
    measured: Any = client.time()
    return measured[0], measured[1]
