"""Presence: which hosts are alive, by keys that expire on their own.

A host is online while its key exists. Presence is an observation, not a fact: a host that cannot reach the broker is
offline here and may well be working. Never cancel a run on presence alone.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import redis
from pydantic import ValidationError
from redis.client import NEVER_DECODE

from fleet import names
from fleet.contracts.hosts import is_unlisted
from fleet.contracts.presence import PRESENCE_TTL, Heartbeat, Presence, presence_at

if TYPE_CHECKING:  # hosts import this module, and never the database's
    from fleet.models.host import Host

#: Keys asked for in one command; a thousand heartbeats are about half a megabyte.
_CHUNK = 1000


def mark(client: "redis.Redis", heartbeat: Heartbeat) -> None:
    """Write a heartbeat; it lives for 35 s."""
    client.set(names.presence(heartbeat.host), heartbeat.model_dump_json(), ex=PRESENCE_TTL)


def clear(client: "redis.Redis", host: str) -> None:
    """Sign a host off at once."""
    client.delete(names.presence(host))


def read(client: "redis.Redis", hosts: Iterable[str]) -> dict[str, Heartbeat | None]:
    """Return the latest heartbeat of each host; None where there is none, or one that cannot be read."""
    beats: dict[str, Heartbeat | None] = {}
    command: Any = client.execute_command
    for part in _chunks(hosts):
        # foreign bytes: a client that decodes would fail on one bad value for all hosts
        values = command("MGET", *[names.presence(host) for host in part], **{NEVER_DECODE: True})
        beats.update({host: _parse(host, value) for host, value in zip(part, values, strict=True)})
    return beats


def connected(client: "redis.Redis", hosts: Iterable[str]) -> set[str]:
    """Return those of the hosts that a push would reach now: their keys exist, whatever they hold."""
    found: set[str] = set()
    for part in _chunks(hosts):
        with client.pipeline(transaction=False) as pipe:
            for host in part:
                pipe.exists(names.presence(host))
            found.update(host for host, exists in zip(part, pipe.execute(), strict=True) if exists)
    return found


def of(host: "Host", heartbeat: Heartbeat | None, now: datetime) -> Presence:
    """Say whether a host is online, stale or offline, by its heartbeat, or else by when it was last seen; of one that
    writes no heartbeats only that it has not signed off."""
    if heartbeat is not None:
        return Presence.ONLINE
    seen, signed_off = host.last_seen_at, host.signed_off_at
    if is_unlisted(host.facts):
        return Presence.UNLISTED if signed_off is None else Presence.OFFLINE
    if seen is None or (signed_off is not None and signed_off >= seen):
        return Presence.OFFLINE
    silent = presence_at(now - seen)
    return Presence.STALE if silent is Presence.ONLINE else silent  # the key ran out, so online it is not


def _chunks(hosts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(hosts)
    while part := list(islice(remaining, _CHUNK)):
        yield part


def _parse(host: str, value: bytes | None) -> Heartbeat | None:
    if value is None:
        return None
    try:
        heartbeat = Heartbeat.model_validate_json(value)
    except ValidationError:
        return None
    return heartbeat if heartbeat.host == host else None
