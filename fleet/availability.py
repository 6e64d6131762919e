"""Availability: whether a host is to take new work, as somebody decided.

The database has the decision, the registry tells it to those who push, and the host's control list to the host, which
obeys at its next look and reports it. What a broker loses of that is written anew by `remind` and by the registry.
"""

from datetime import timedelta
from typing import Any

import redis
from sqlmodel import Session

from fleet import audit, clock, inventory, names, presence
from fleet.contracts.control import SetAvailability
from fleet.contracts.hosts import Availability
from fleet.keyring import Keyring
from fleet.models import Host, Membership


def set(  # noqa: A001 - read as availability.set
    session: Session,
    client: "redis.Redis",
    ring: Keyring,
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
    seconds, microseconds = _time(client)
    now = seconds + microseconds / 1e6
    until = None if deadline is None else now + deadline.total_seconds()
    changed = inventory.set_availability(
        session,
        host,
        availability,
        at=clock.from_unix(now),
        deadline=None if until is None else clock.from_unix(until),
    )
    audit.record(
        session,
        event="host.availability_set",
        actor=names.principal_sender(by),
        host_id=host,
        data={"availability": availability.value, "deadline": until},
    )
    inventory.publish_hosts(session, client, host)
    row = inventory.host(session, host)
    if row.keys:
        client.lpush(names.control(host), ring.word(row.keys[0], decision(row, by=by)))
    return changed


def remind(session: Session, client: "redis.Redis", ring: Keyring) -> int:
    """Tell those hosts again whose heartbeats differ from what was decided; return how many.

    The word may be on its way, or its host about to obey: it is not sent twice while the same waits to be read.
    """
    rows = {host.id: host for host in inventory.hosts(session) if host.membership == Membership.ACCEPTED and host.keys}
    beats = presence.read(client, rows)
    command: Any = client
    told = 0
    for host, beat in beats.items():
        if beat is None or beat.availability == rows[host].availability:
            continue
        # the same words have the same signature
        word = ring.word(rows[host].keys[0], decision(rows[host], by="control"))
        if command.lpos(names.control(host), word) is None:
            client.lpush(names.control(host), word)
            told += 1
    return told


def decision(host: Host, *, by: str) -> SetAvailability:
    """Return what the host is told: the decision as it is on record. Heard again, it changes nothing."""
    return SetAvailability(
        availability=Availability(host.availability),
        deadline=host.drain_deadline.timestamp() if host.drain_deadline else None,
        by=by,
        decided_at=host.availability_at.timestamp() if host.availability_at else 0.0,
    )


def _time(client: "redis.Redis") -> tuple[int, int]:
    measured: Any = client.time()
    return measured[0], measured[1]
