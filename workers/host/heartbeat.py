"""The heartbeat: one write that says this host is alive, and how it is.

It has a connection of its own, with time-outs of a second, and runs in the beat's thread: neither a full pool nor a
consumer that hangs can hold it up, and it tells of both.
"""

import os
from datetime import datetime
from typing import Protocol

import redis

from fleet import names, presence
from fleet.clock import BrokerClock
from fleet.contracts.hosts import Facts
from fleet.contracts.presence import Heartbeat
from workers.host.availability import Gate
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.pulse import Pulse
from workers.host.running import Running


class KnowsDocker(Protocol):
    @property
    def docker_reachable(self) -> bool | None: ...


class HeartbeatWriter:
    """Composes and writes heartbeats."""

    def __init__(
        self,
        client: "redis.Redis",
        *,
        host: str,
        facts: Facts,
        started_at: datetime,
        pulse: Pulse,
        outbox: Outbox,
        inventory: KnowsDocker,
        journal: Journal,
        running: Running,
        gate: Gate,
        clock: BrokerClock,
        listed: bool,
    ) -> None:
        """One that is not `listed` writes none, and measures the broker's clock all the same."""
        self._client = client
        self._host = host
        self._facts = facts
        self._started_at = started_at
        self._pulse = pulse
        self._outbox = outbox
        self._inventory = inventory
        self._journal = journal
        self._running = running
        self._gate = gate
        self._clock = clock
        self._listed = listed
        #: whether a heartbeat of an earlier session may be there that is to go
        self._leftover = not listed
        #: the latest that was made; of a host that keeps to itself it is for its own eyes
        self.last: Heartbeat | None = None

    def write(self) -> None:
        """Write one heartbeat; raises redis-py's errors within about a second when the broker is away."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.llen(names.queue(self._host))
            pipe.llen(names.dead(self._host))
            broker_time, queue_length, dead_letters = pipe.execute()
        self._clock.measure(broker_time)
        self._pulse.hear()
        if self._leftover:
            self.clear()
            self._leftover = False
        heartbeat = Heartbeat(
            host=self._host,
            at=self._clock.now(),
            epoch=self._outbox.epoch,
            version=self._facts.fleet_version,
            address=self._facts.address,
            port=self._facts.port,
            pid=os.getpid(),
            started_at=self._started_at,
            loop_age_seconds=self._pulse.age(),
            in_hand=len(self._running),
            queue_length=queue_length,
            outbox_length=self._outbox.backlog(),
            recovering=self._journal.recovering(),
            dead_letters=dead_letters,
            availability=self._gate.availability,
            docker_reachable=self._inventory.docker_reachable,
            clock_skew_seconds=round(self._clock.skew(), 3),
        )
        if self._listed:
            presence.mark(self._client, heartbeat)
        self.last = heartbeat

    def clear(self) -> None:
        """Sign off: the host is offline at once, and not only when its key runs out."""
        presence.clear(self._client, self._host)
