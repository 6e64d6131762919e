"""Metrics: what Prometheus may ask of a control worker, found out at the moment it asks.

Off by default, because whoever reaches the address learns the names of all hosts. Hosts speak through their heartbeats,
runs are counted by one query, and the lengths of queues come from the broker, so that they are known of hosts that are
away, too. A control worker that cannot look says so (`fleet_observed` 0) instead of showing old numbers.

The first 500 hosts by name have series of their own, which ones does not change from one look to the next; of the
others there is a count. The largest value of all hosts, and their sum, are always there, and alerts belong on those.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from prometheus_client.core import Metric
from sqlalchemy import Engine, func
from sqlmodel import Session, col, or_, select

from fleet import clock, db, errors, listening, logs, names, presence
from fleet.contracts import registry
from fleet.contracts.presence import Heartbeat, Presence
from fleet.local.exposition import by_contract, gauge, labeled, page
from fleet.local.pages import PageServer
from fleet.models import Approval, ApprovalState, Host, Membership, Run, RunState

log = logs.get(__name__)

#: Hosts with series of their own: with eight numbers each, 4,000 series.
MOST_HOSTS = 500


@dataclass(frozen=True, kw_only=True)
class OwnState:
    """What a control worker knows of itself."""

    lease_held: bool
    #: of its loops' last ticks, in seconds
    loop_ages: Mapping[str, float | None]
    #: see `Ingest.lag`
    ingest_lag_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class _OfHosts:
    """A number that each host has, or not."""

    name: str
    text: str
    values: Mapping[str, float]
    #: whether the sum over all hosts means anything
    adds_up: bool = True


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """What the database says."""

    hosts: list[Host]
    #: by (contract, state)
    runs: dict[tuple[str, str], float]
    #: how long the oldest run that could have been taken waits, by host
    waiting: dict[str, float]
    approvals: int
    approval_age: float


@dataclass(kw_only=True)
class FleetObserver:
    """Looks at the fleet whenever it is asked."""

    engine: Engine
    client: "redis.Redis"
    own: Callable[[], OwnState] | None = None
    _failing: bool = field(default=False, init=False)

    def look(self) -> Iterator[Metric]:
        """Give all metrics; of a database or broker that does not answer only that, and what it knows of itself."""
        found: list[Metric] = []
        try:
            found += self._fleet()
        except (errors.FleetError, redis.RedisError) as exc:
            if not self._failing:
                log.warning("metrics.unobserved", error=str(exc), consequence="fleet_observed is 0 until it works")
        self._failing = not found
        yield gauge("fleet_observed", "Whether broker and database answered.", bool(found))
        yield from found
        if self.own:
            yield from _of_itself(self.own())

    def _fleet(self) -> Iterator[Metric]:
        now = clock.from_unix(clock.of_broker(self.client))
        with db.session(self.engine, write=False) as session:
            counted = _count(session, now)
        ids = sorted(host.id for host in counted.hosts)
        beats = presence.read(self.client, ids)
        lengths = self._lengths(ids)
        dirty: Any = self.client.scard(names.REPORTS_DIRTY)
        present = Counter(presence.of(host, beats[host.id], now) for host in counted.hosts)
        numbers = {(each.value,): float(present[each]) for each in Presence}
        yield labeled("fleet_hosts", "Hosts by presence.", ("presence",), numbers)
        left_out = max(0, len(ids) - MOST_HOSTS)
        yield gauge("fleet_hosts_left_out", "Hosts without series of their own here.", left_out)
        shown = set(ids[:MOST_HOSTS])
        for numbers_of_hosts in (*_of_heartbeats(beats), *_of_queues(lengths, counted.waiting)):
            yield from _told(numbers_of_hosts, shown)
        yield from _of_runs(counted)
        yield gauge("fleet_reports_dirty_senders", "Hosts and principals with news that nobody has looked at.", dirty)

    def _lengths(self, hosts: list[str]) -> dict[str, float]:
        if not hosts:
            return {}
        with self.client.pipeline(transaction=False) as pipe:
            for host in hosts:
                pipe.llen(names.queue(host))
            return dict(zip(hosts, map(float, pipe.execute()), strict=True))


@contextlib.contextmanager
def serve(
    address: str, *, engine: Engine, client: "redis.Redis", own: Callable[[], OwnState] | None = None
) -> Iterator[int]:
    """Serve `/metrics` at ADDRESS:PORT until the block ends; gives the port.

    Raises `errors.LocalFault` for an address that cannot be listened on.
    """
    observer = FleetObserver(engine=engine, client=client, own=own)
    wish = listening.parse(address, example="127.0.0.1:9464", any_port=True)
    try:
        server = PageServer(wish.host, wish.port, {"/metrics": page(observer.look)})
    except OSError as exc:
        raise errors.LocalFault(
            f"metrics: cannot listen on {address} ({exc.strerror or exc})",
            remedy="name an address of this machine and a free port in FLEET_METRICS_ADDRESS",
        ) from exc
    log.info("metrics.served", address=address)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def _count(session: Session, now: Any) -> _Counted:
    hosts = session.exec(select(Host).where(Host.membership == Membership.ACCEPTED)).all()
    states = session.exec(select(Run.task, Run.state, func.count()).group_by(col(Run.task), col(Run.state))).all()
    due = or_(col(Run.not_before).is_(None), col(Run.not_before) <= now)
    queued = select(Run.host_id, func.min(Run.submitted_at)).where(Run.state == RunState.QUEUED, due)
    oldest = session.exec(queued.group_by(col(Run.host_id))).all()
    asked = select(func.count(), func.min(Approval.asked_at)).where(Approval.state == ApprovalState.PENDING)
    waiting, first = session.exec(asked).one()
    return _Counted(
        hosts=list(hosts),
        runs={(task, state): float(count) for task, state, count in states},
        waiting={host: _age(at, now) for host, at in oldest},
        approvals=waiting,
        approval_age=_age(first, now),
    )


def _age(moment: Any, now: Any) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())


def _of_heartbeats(beats: Mapping[str, Heartbeat | None]) -> Iterator[_OfHosts]:
    def known(number: Callable[[Heartbeat], float | None]) -> dict[str, float]:
        found = {host: number(beat) for host, beat in beats.items() if beat is not None}
        return {host: float(value) for host, value in found.items() if value is not None}

    yield _OfHosts(
        name="dead_letters",
        text="Items of the host's queue that were no messages or were refused.",
        values=known(lambda beat: beat.dead_letters),
    )
    yield _OfHosts(
        name="outbox_backlog",
        text="Reports that the host has not handed to the broker yet.",
        values=known(lambda beat: beat.outbox_length),
    )
    yield _OfHosts(
        name="runs_recovering",
        text="Runs that a crash interrupted and that have not ended since.",
        values=known(lambda beat: beat.recovering),
    )
    yield _OfHosts(
        name="clock_skew_seconds",
        text="The host's clock minus the broker's; the largest is the one that is furthest off.",
        values=known(lambda beat: beat.clock_skew_seconds),
        adds_up=False,
    )
    yield _OfHosts(
        name="loop_age_seconds",
        text="Time since the host's consumer loop last ticked, by its heartbeat.",
        values=known(lambda beat: beat.loop_age_seconds),
        adds_up=False,
    )


def _of_queues(lengths: Mapping[str, float], waiting: Mapping[str, float]) -> Iterator[_OfHosts]:
    yield _OfHosts(name="queue_length", text="Messages that wait for the host.", values=lengths)
    ages = {host: waiting.get(host, 0.0) for host in lengths}
    text = "How long the oldest run has waited that the host could have taken."
    yield _OfHosts(name="queue_age_seconds", text=text, values=ages, adds_up=False)


def _told(found: _OfHosts, shown: set[str]) -> Iterator[Metric]:
    name = f"fleet_{found.name}"
    yield labeled(name, found.text, ("host",), {(h,): value for h, value in found.values.items() if h in shown})
    largest = max(found.values.values(), key=abs, default=0.0)
    yield gauge(f"{name}_max", f"{found.text} Of all hosts the largest.", largest)
    if found.adds_up:
        yield gauge(f"{name}_all", f"{found.text} Of all hosts together.", sum(found.values.values()))


def _of_runs(counted: _Counted) -> Iterator[Metric]:
    states = dict.fromkeys([(state.value,) for state in RunState], 0.0)
    for (_, state), count in counted.runs.items():
        states[state,] = states.get((state,), 0.0) + count
    yield labeled("fleet_runs", "Runs by state.", ("state",), states)
    contracts = by_contract(counted.runs, known=(contract.name for contract in registry.OWN))
    text = "Runs by contract and state; contracts of packages beyond a number are counted together."
    yield labeled("fleet_contract_runs", text, ("contract", "state"), contracts)
    yield gauge("fleet_approvals_waiting", "Runs that wait for somebody's approval.", counted.approvals)
    oldest = "How long the oldest of the runs has waited that wait for approval."
    yield gauge("fleet_approval_age_seconds_max", oldest, counted.approval_age)


def _of_itself(own: OwnState) -> Iterable[Metric]:
    ages = {(name,): age for name, age in own.loop_ages.items() if age is not None}
    text = "Time since a loop of this control worker last ticked."
    yield labeled("fleet_control_loop_age_seconds", text, ("loop",), ages)
    yield gauge("fleet_lease_held", "Whether this control worker is the one that writes.", own.lease_held)
    if own.ingest_lag_seconds is not None:
        text = "How long the sender that waits longest has had reports that are not taken in; of the writer alone."
        yield gauge("fleet_ingest_lag_seconds", text, own.ingest_lag_seconds)
