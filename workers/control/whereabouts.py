"""Whereabouts: in which list of the broker a run's message lies now, if in any."""

from collections.abc import Sequence
from enum import Enum
from itertools import groupby
from typing import Any

import redis

from fleet import names
from fleet.models import Run

#: Sessions of a host whose inboxes are looked into. A message in an older one is sent again, which harms nobody.
_SESSIONS = 10
#: Runs of one host from which on a stretch of its queue is read, instead of asking for each message.
_MANY = 20


class Place(Enum):
    #: waits to be taken
    QUEUE = "queue"
    #: taken, and not yet in the journal for certain
    INBOX = "inbox"
    NOWHERE = "nowhere"


def locate(client: "redis.Redis", wanted: Sequence[Run]) -> dict[str, Place]:
    """Return where the messages of these runs lie, by run id. Runs without a message are nowhere."""
    places = {run.id: Place.NOWHERE for run in wanted}
    found = sorted((run for run in wanted if run.message), key=lambda run: (run.host_id, run.id))
    by_host = {host: list(of_host) for host, of_host in groupby(found, key=lambda run: run.host_id)}
    if not by_host:
        return places
    epochs: Any = client.mget([names.epoch(host) for host in by_host])
    for (host, of_host), epoch in zip(by_host.items(), epochs, strict=True):
        queued = _in_a_stretch(client, host, of_host) if len(of_host) >= _MANY else set()
        places.update(dict.fromkeys(queued, Place.QUEUE))
        rest = [run for run in of_host if run.id not in queued]
        places.update(_one_by_one(client, host, rest, newest=int(epoch or 0)))
    return places


def _in_a_stretch(client: "redis.Redis", host: str, wanted: Sequence[Run]) -> set[str]:
    """Return those of the runs that lie in the queue one after the other, as they do where nothing has gone wrong.

    Asking for each of many messages would walk the whole queue for each.
    """
    command: Any = client
    queue = names.queue(host)
    oldest = command.lpos(queue, wanted[0].message, rank=-1)
    if oldest is None:
        return set()
    lying = set(command.lrange(queue, max(0, oldest - 2 * len(wanted)), oldest))
    return {run.id for run in wanted if run.message in lying}


def _one_by_one(client: "redis.Redis", host: str, wanted: Sequence[Run], *, newest: int) -> dict[str, Place]:
    if not wanted:
        return {}
    inboxes = [names.inbox(host, epoch) for epoch in range(max(1, newest - _SESSIONS + 1), newest + 1)]
    pipe: Any
    with client.pipeline(transaction=False) as pipe:
        for run in wanted:
            # the queue first: what its host takes meanwhile is then seen in the inbox
            for key in (names.queue(host), *inboxes):
                pipe.lpos(key, run.message)
        answers = pipe.execute()
    places, width = {}, len(inboxes) + 1
    for index, run in enumerate(wanted):
        queued, *taken = answers[index * width : (index + 1) * width]
        if queued is not None:
            places[run.id] = Place.QUEUE
        elif any(position is not None for position in taken):
            places[run.id] = Place.INBOX
    return places
