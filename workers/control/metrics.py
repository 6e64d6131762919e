"""Metrics: what Prometheus may ask of a control worker, found out at the moment it asks.

Off by default, because whoever reaches the address learns the names of all hosts. Hosts speak through their heartbeats,
runs are counted by one query, and the lengths of queues come from the broker, so that they are known of hosts that are
away, too. A control worker that cannot look says so (`fleet_observed` 0) instead of showing old numbers.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import redis
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func
from sqlmodel import Session, col, select

from fleet import clock, db, errors, logs, names, presence
from fleet.contracts.presence import Heartbeat, Presence
from fleet.models import Host, Membership, Run, RunState

log = logs.get(__name__)

#: Numbers of heartbeats, with what they are.
_OF_HOSTS = {
    "dead_letters": ("dead_letters", "Items of the host's queue that were no messages or were refused."),
    "outbox_backlog": ("outbox_length", "Reports that the host has not handed to the broker yet."),
    "clock_skew_seconds": ("clock_skew_seconds", "The host's clock minus the broker's."),
    "loop_age_seconds": ("loop_age_seconds", "Time since the host's consumer loop last ticked."),
    "runs_recovering": ("recovering", "Runs that a crash interrupted and that have not ended since."),
}


class FleetCollector(Collector):
    """Looks at the fleet whenever it is asked."""

    def __init__(self, *, engine: Engine, client: "redis.Redis") -> None:
        self._engine = engine
        self._client = client
        self._failing = False

    def describe(self) -> Iterable[Metric]:
        """Name no metrics beforehand: that would be a look at a broker that may not be there yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give all metrics; of a database or broker that does not answer only that."""
        found: list[Metric] = []
        try:
            found += self._look()
        except (errors.FleetError, redis.RedisError) as exc:
            if not self._failing:
                log.warning("metrics.unobserved", error=str(exc), consequence="fleet_observed is 0 until it works")
        self._failing = not found
        yield GaugeMetricFamily("fleet_observed", "Whether broker and database answered.", value=float(bool(found)))
        yield from found

    def _look(self) -> Iterator[Metric]:
        with db.session(self._engine, write=False) as session:
            hosts = session.exec(select(Host).where(Host.membership == Membership.ACCEPTED)).all()
            states = _count_states(session)
        ids = [host.id for host in hosts]
        beats = presence.read(self._client, ids)
        yield from _of_heartbeats(beats)
        yield _labelled("fleet_queue_length", "Messages that wait for the host.", "host", self._queue_lengths(ids))
        yield _labelled("fleet_runs", "Runs by state.", "state", states)
        measured: Any = self._client.time()
        now = clock.from_unix(measured[0])
        present = Counter(presence.of(host, beats[host.id], now) for host in hosts)
        numbers = {each.value: float(present[each]) for each in Presence}
        yield _labelled("fleet_hosts", "Hosts by presence.", "presence", numbers)

    def _queue_lengths(self, hosts: Iterable[str]) -> dict[str, float]:
        ordered = list(hosts)
        if not ordered:
            return {}
        with self._client.pipeline(transaction=False) as pipe:
            for host in ordered:
                pipe.llen(names.queue(host))
            return dict(zip(ordered, map(float, pipe.execute()), strict=True))


@contextlib.contextmanager
def serve(address: str, *, engine: Engine, client: "redis.Redis") -> Iterator[int]:
    """Serve `/metrics` at ADDRESS:PORT until the block ends; gives the port.

    Raises `errors.LocalFault` for an address that cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(FleetCollector(engine=engine, client=client))
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as exc:
        raise errors.LocalFault(
            f"metrics: cannot listen on {address} ({exc.strerror or exc})",
            remedy="name an address of this machine and a free port in FLEET_METRICS_ADDRESS",
        ) from exc
    log.info("metrics.served", address=address)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(1)


def _count_states(session: Session) -> dict[str, float]:
    counted = session.exec(select(Run.state, func.count()).group_by(col(Run.state))).all()
    return {**{state.value: 0.0 for state in RunState}, **{state: float(count) for state, count in counted}}


def _of_heartbeats(beats: Mapping[str, Heartbeat | None]) -> Iterator[Metric]:
    for name, (field, text) in _OF_HOSTS.items():
        values = {host: getattr(beat, field) for host, beat in beats.items() if beat is not None}
        known = {host: float(value) for host, value in values.items() if value is not None}
        yield _labelled(f"fleet_{name}", text, "host", known)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
