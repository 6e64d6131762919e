"""Availability: whether a host is to take new work, as somebody decided.

The database has the decision, the registry tells it to those who push, and the host's control list to the host, which
obeys at its next look and reports it. What a broker loses of that is written anew by `remind` and by the registry.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Protocol

import redis
from sqlmodel import Session

from fleet import audit, clock, inventory, names, presence
from fleet.contracts.control import SetAvailability
from fleet.contracts.hosts import Availability
from fleet.keyring import Keyring
from fleet.models import Host, Membership


class Control(Protocol):
    """Database, broker and the fleet's keys, for one transaction of the database."""

    @property
    def session(self) -> Session: ...
    @property
    def client(self) -> "redis.Redis": ...
    @property
    def ring(self) -> Keyring: ...


#: Opens one transaction after another, each committed when its block ends well.
Opened = Callable[[], AbstractContextManager[Control]]


def set(  # noqa: A001 - read as availability.set
    opened: Opened,
    hosts: Iterable[str],
    availability: Availability,
    *,
    by: str,
    deadline: timedelta | None = None,
) -> None:
    """Decide that hosts are active, paused or draining, and tell them and those who push.

    `by` is a principal's name. `deadline` is how long what runs may go on on a host that is draining; then it is
    cancelled. All hosts are looked up before anything is decided, and each is told once its own decision is committed:
    what it obeys is on record, and what it has not heard `remind` makes good. Each has a transaction of its own, so
    that nobody who waits for another host's row waits for the right to append to the audit, too.

    Raises `errors.NotFound` for an unknown host and, without a broker, redis-py's errors before anything is decided.
    """
    wanted = list(dict.fromkeys(hosts))
    with opened() as control:
        for host in wanted:
            inventory.host(control.session, host)
        now = clock.of_broker(control.client)
    for host in wanted:
        with opened() as control:
            _decide(control.session, host, availability, by=by, now=now, deadline=deadline)
        with opened() as control:
            _tell(control, host, by=by)


def _decide(
    session: Session, host: str, availability: Availability, *, by: str, now: float, deadline: timedelta | None
) -> None:
    until = None if deadline is None else now + deadline.total_seconds()
    inventory.set_availability(
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


def _tell(control: Control, host: str, *, by: str) -> None:
    """Write the entry of a host, and tell it what is on record now: another decision may have come in between."""
    row = inventory.kept_still(control.session, host)  # so that no older entry is written after a newer one
    inventory.publish_hosts(control.session, control.client, host)
    if row.keys:
        control.client.lpush(names.control(host), control.ring.word(row.keys[0], decision(row, by=by)))


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
