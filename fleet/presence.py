"""Presence: which hosts are alive, by keys that expire on their own.

A host is online while its key exists. Presence is an observation, not a fact: a host that cannot reach the broker is
offline here and may well be working. Never cancel a run on presence alone.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import redis
from pydantic import ValidationError

from fleet import names
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
    wanted = list(hosts)
    beats: dict[str, Heartbeat | None] = {}
    for begin in range(0, len(wanted), _CHUNK):
        part = wanted[begin : begin + _CHUNK]
        values = client.mget([names.presence(host) for host in part])
        beats.update({host: _parse(host, value) for host, value in zip(part, values, strict=True)})
    return beats


def of(host: "Host", heartbeat: Heartbeat | None, now: datetime) -> Presence:
    """Say whether a host is online, stale or offline, by its heartbeat, or else by when it was last seen."""
    if heartbeat is not None:
        return Presence.ONLINE
    seen, signed_off = host.last_seen_at, host.signed_off_at
    if seen is None or (signed_off is not None and signed_off >= seen):
        return Presence.OFFLINE
    silent = presence_at(now - seen)
    return Presence.STALE if silent is Presence.ONLINE else silent  # the key ran out, so online it is not


def _parse(host: str, value: str | bytes | None) -> Heartbeat | None:
    if value is None:
        return None
    try:
        heartbeat = Heartbeat.model_validate_json(value)
    except ValidationError:
        return None
    return heartbeat if heartbeat.host == host else None
