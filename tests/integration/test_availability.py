"""Availability: decided in the database, told to those who push, and to the host until it obeys."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from fleet import audit, availability, clock, db, errors, inventory, names, presence
from fleet.api.plane import Control
from fleet.contracts.hosts import Availability
from fleet.contracts.presence import Heartbeat
from fleet.security import signing
from fleet.security.trust import Trust
from tests import factories
from tests.services.broker import Broker
from tests.services.system import System
from tests.services.waiting import until

RING = factories.ring()


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@pytest.fixture
def enrolled(engine: Engine) -> Engine:
    with db.session(engine) as session:
        for host in ("edge-1", "edge-2", "gone"):
            factories.enroll(session, host)
        inventory.revoke_host(session, inventory.host(session, "gone"))
    return engine


def heartbeat(host: str, said: Availability) -> Heartbeat:
    return Heartbeat(
        host=host,
        at=1.0,
        epoch=1,
        version="0.1.0",
        address="edge.example",
        port=8000,
        pid=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        loop_age_seconds=0.1,
        in_hand=0,
        queue_length=0,
        docker_reachable=True,
        availability=said,
    )


@contextmanager
def control(engine: Engine, client: "redis.Redis") -> Iterator[Control]:
    with db.session(engine) as session:
        yield Control(session=session, client=client, ring=RING)


def words(client: "redis.Redis", host: str) -> list[dict[str, Any]]:
    return factories.heard(client, host)


def published(client: "redis.Redis", host: str) -> str:
    entry: Any = client.hget(names.HOSTS, host)
    return str(json.loads(entry)["availability"])


def decided(engine: Engine, host: str) -> str:
    with db.session(engine, write=False) as session:
        return inventory.host(session, host).availability


def test_a_decision_reaches_database_registry_host_and_audit(enrolled: Engine, client: "redis.Redis") -> None:
    opened = partial(control, enrolled, client)
    earliest: Any = client.time()
    availability.set(opened, ["edge-1"], Availability.DRAINING, by="alice", deadline=timedelta(minutes=10))
    latest: Any = client.time()
    with db.session(enrolled) as session:
        assert inventory.host(session, "edge-1").availability == "draining"
        (event,) = audit.events(session, event="host.availability_set")
    availability.set(opened, ["edge-1", "edge-1"], Availability.DRAINING, by="alice")
    assert published(client, "edge-1") == "draining"
    first, second = words(client, "edge-1")
    assert (first["kind"], first["availability"], first["by"]) == ("host.availability", "draining", "alice")
    assert earliest[0] - 1 <= first["deadline"] - 600 <= latest[0] + 1
    assert second["deadline"] is None
    assert second["decided_at"] > first["decided_at"]
    assert (event.actor, event.host_id, event.data["availability"]) == ("p:alice", "edge-1", "draining")


def test_a_host_that_is_not_there_is_named_before_any_other_is_told(enrolled: Engine, client: "redis.Redis") -> None:
    with pytest.raises(errors.NotFound, match="no host named 'edge-9'"):
        availability.set(partial(control, enrolled, client), ["edge-1", "edge-9"], Availability.PAUSED, by="alice")
    assert client.dbsize() == 0
    assert decided(enrolled, "edge-1") == "active"


def test_what_could_not_be_committed_is_told_to_nobody(enrolled: Engine, client: "redis.Redis") -> None:
    @contextmanager
    def failing() -> Iterator[Control]:
        with control(enrolled, client) as opened:
            yield opened
            if audit.events(opened.session, event="host.availability_set"):
                raise errors.DatabaseUnavailable("it has gone", remedy="")

    with pytest.raises(errors.DatabaseUnavailable):
        availability.set(failing, ["edge-1"], Availability.PAUSED, by="alice")
    assert decided(enrolled, "edge-1") == "active"
    assert client.dbsize() == 0


def test_without_the_broker_nothing_is_decided(enrolled: Engine, client: "redis.Redis", any_broker: Broker) -> None:
    any_broker.stop()
    with pytest.raises(redis.RedisError):
        availability.set(partial(control, enrolled, client), ["edge-1"], Availability.PAUSED, by="alice")
    assert decided(enrolled, "edge-1") == "active"


def test_of_two_decisions_the_one_on_record_is_the_later_one_for_hosts(enrolled: Engine, client: "redis.Redis") -> None:
    """Also where the clock that both went by has gone back in between: the host drops what is older."""
    ahead = clock.now() + timedelta(hours=1)
    with db.session(enrolled) as session:
        inventory.set_availability(session, "edge-1", Availability.DRAINING, at=ahead)
    availability.set(partial(control, enrolled, client), ["edge-1"], Availability.ACTIVE, by="alice")
    [word] = words(client, "edge-1")
    assert word["decided_at"] > ahead.timestamp()


@pytest.mark.postgres
@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize("backend", ["postgresql"])
def test_deciding_of_many_hosts_and_whoever_records_beside_it_never_wait_for_each_other(
    enrolled: Engine, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[Future[None]] = []

    def report() -> None:
        with db.session(enrolled) as session:
            inventory.deregister(session, "edge-2", at=clock.now())
            audit.record(session, event="host.deregistered", actor="edge-2", host_id="edge-2")

    def waits() -> bool:
        with db.session(enrolled, write=False) as session:
            held_up = session.connection().execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one()
        return bool(held_up) or beside[0].done()

    def record(session: Any, **what: Any) -> None:
        audit.record(session, **what)
        if not beside:  # the first host's decision has the right to append
            beside.append(pool.submit(report))
            until(waits, "the other one waits for that right, with the second host's row in hand")

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(availability, "audit", type("Audit", (), {"record": staticmethod(record)}))
        hosts = ["edge-1", "edge-2"]
        availability.set(partial(control, enrolled, client), hosts, Availability.PAUSED, by="alice")
        beside[0].result(timeout=30)
    assert [decided(enrolled, host) for host in hosts] == ["paused", "paused"]


def test_a_host_that_has_not_heard_of_it_is_told_again_once(enrolled: Engine, client: "redis.Redis") -> None:
    availability.set(partial(control, enrolled, client), ["edge-1"], Availability.PAUSED, by="alice")
    client.flushall()  # the broker lost its disk
    presence.mark(client, heartbeat("edge-1", Availability.ACTIVE))
    presence.mark(client, heartbeat("edge-2", Availability.ACTIVE))
    presence.mark(client, heartbeat("gone", Availability.PAUSED))
    with db.session(enrolled, write=False) as session:
        assert [availability.remind(session, client, RING) for _ in range(2)] == [1, 0]
    assert [word["availability"] for word in words(client, "edge-1")] == ["paused"]
    presence.mark(client, heartbeat("edge-1", Availability.PAUSED))
    client.delete(names.control("edge-1"))
    with db.session(enrolled, write=False) as session:
        assert availability.remind(session, client, RING) == 0


def test_the_name_of_a_revoked_host_inherits_nothing(enrolled: Engine, client: "redis.Redis") -> None:
    with db.session(enrolled) as session:
        found = inventory.host(session, "gone")
        found.availability, found.journal = "draining", "old"
        factories.enroll(session, "gone")
    with db.session(enrolled, write=False) as session:
        assert inventory.host(session, "gone").availability == "active"
        assert inventory.host(session, "gone").journal is None


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_control_worker_reminds_hosts_by_itself(system: System) -> None:
    with system.control_plane() as (session, _client, ring):
        factories.enroll(session, "edge-1")
        inventory.set_availability(session, "edge-1", Availability.PAUSED, at=datetime.now(UTC))
    presence.mark(system.redis, heartbeat("edge-1", Availability.ACTIVE))
    system.start_control()

    def told() -> str | None:
        for item in system.redis.lrange(names.control("edge-1"), 0, -1):
            text, principal = signing.check_control(
                item, [factories.key("edge-1").public], trust=Trust.in_keys([ring.newest.public])
            )
            if principal is None and (word := json.loads(text))["kind"] == "host.availability":
                return str(word["availability"])
        return None

    assert until(told, "the host is told") == "paused"
    assert published(system.redis, "edge-1") == "paused"
