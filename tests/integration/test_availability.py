"""Availability: decided in the database, told to those who push, and to the host until it obeys."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import audit, availability, db, errors, inventory, names, presence
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


def words(client: "redis.Redis", host: str) -> list[dict[str, Any]]:
    return factories.heard(client, host)


def published(client: "redis.Redis", host: str) -> str:
    entry: Any = client.hget(names.HOSTS, host)
    return str(json.loads(entry)["availability"])


def test_a_decision_reaches_database_registry_host_and_audit(enrolled: Engine, client: "redis.Redis") -> None:
    earliest: Any = client.time()
    with db.session(enrolled) as session:
        assert availability.set(
            session, client, RING, "edge-1", Availability.DRAINING, by="alice", deadline=timedelta(minutes=10)
        )
    latest: Any = client.time()
    with db.session(enrolled) as session:
        assert inventory.host(session, "edge-1").availability == "draining"
        (event,) = audit.events(session, event="host.availability_set")
        assert not availability.set(session, client, RING, "edge-1", Availability.DRAINING, by="alice")
    assert published(client, "edge-1") == "draining"
    first, second = words(client, "edge-1")
    assert (first["kind"], first["availability"], first["by"]) == ("host.availability", "draining", "alice")
    assert earliest[0] - 1 <= first["deadline"] - 600 <= latest[0] + 1
    assert second["deadline"] is None
    assert (event.actor, event.host_id, event.data["availability"]) == ("p:alice", "edge-1", "draining")


def test_a_host_that_is_not_there_is_named(enrolled: Engine, client: "redis.Redis") -> None:
    with pytest.raises(errors.NotFound, match="no host named 'edge-9'"), db.session(enrolled) as session:
        availability.set(session, client, RING, "edge-9", Availability.PAUSED, by="alice")
    assert client.dbsize() == 0


def test_without_the_broker_nothing_is_decided(enrolled: Engine, client: "redis.Redis", any_broker: Broker) -> None:
    any_broker.stop()
    with pytest.raises(redis.RedisError), db.session(enrolled) as session:
        availability.set(session, client, RING, "edge-1", Availability.PAUSED, by="alice")
    with db.session(enrolled, write=False) as session:
        assert inventory.host(session, "edge-1").availability == "active"


def test_a_host_that_has_not_heard_of_it_is_told_again_once(enrolled: Engine, client: "redis.Redis") -> None:
    with db.session(enrolled) as session:
        availability.set(session, client, RING, "edge-1", Availability.PAUSED, by="alice")
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
