"""The session epoch: a number that each worker session of a host takes once, larger than all before.

One host id is one worker. On one machine a file lock proves that the former session is over. A session elsewhere (a
cloned machine, a moved state directory) is over when its heartbeat is: until then a newcomer waits, and from then on
whoever holds an older number ends (`workers.host.control`).
"""

import time
from dataclasses import dataclass
from typing import Any

import redis

from fleet import clock, errors, logs, names
from fleet.address import Address
from fleet.broker.connection import translated
from fleet.clock import BrokerClock
from fleet.contracts.presence import Heartbeat

log = logs.get(__name__)


#: How long a broker that does not know this host's user may take to hear of it.
_REFUSED_WITHIN_SECONDS = 15.0


@dataclass(frozen=True)
class Taken:
    """An epoch of my own."""

    number: int
    #: whether sessions elsewhere came after the newest that my journal knows
    superseded: bool


def take(client: "redis.Redis", host: str, *, known: int) -> Taken | None:
    """Take the next epoch; None where another worker of this host is alive elsewhere.

    `known` is the newest that the journal remembers: a broker that lost its disk must not hand out a number again, and
    a living session that is newer is none of mine.
    """
    key = names.epoch(host)
    pipe: Any
    with client.pipeline() as pipe:
        while True:
            try:
                pipe.watch(key)
                newest = int(pipe.get(key) or 0)
                if newest > known and _alive(pipe.get(names.presence(host)), known):
                    return None
                number = max(newest, known) + 1
                pipe.multi()
                pipe.set(key, number)
                pipe.execute()
            except redis.WatchError:
                continue
            return Taken(number, superseded=newest > known)


def await_turn(client: "redis.Redis", host: str, broker: Address, *, known: int, broker_clock: BrokerClock) -> Taken:
    """Take an epoch and the broker's time, waiting for a broker that is away, or for a session elsewhere to end.

    Raises `errors.BrokerRefused` where the broker goes on not to take the credential.
    """
    waiting_for, refused_until = "", clock.elapsed() + _REFUSED_WITHIN_SECONDS
    while True:
        try:
            with translated(broker):
                measured: Any = client.time()  # the queue is read before the first heartbeat measures it
                broker_clock.measure(measured)
                if taken := take(client, host, known=known):
                    return taken
            event, problem = "host.taken", f"another worker of host {host!r} is alive elsewhere"
        except errors.BrokerRefused as exc:
            # It may have started a moment ago, and hear only now whom it is to let in.
            if clock.elapsed() > refused_until:
                raise
            event, problem = "broker.refused", str(exc)
        except errors.BrokerUnavailable as exc:
            event, problem = "broker.awaited", str(exc)
        if waiting_for != event:
            waiting_for = event
            log.warning(event, error=problem, next="waiting for it")
        time.sleep(0.5)  # nothing runs yet that an event could come from; a signal ends the process


def _alive(heartbeat: str | None, known: int) -> bool:
    return heartbeat is not None and Heartbeat.model_validate_json(heartbeat).epoch > known
