"""The registry: who is alive now, and what the database remembers of it."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, insert

from fleet import clock, db, inventory, names, presence
from fleet.contracts.presence import Heartbeat, Presence
from fleet.models import Host, Membership
from tests import factories
from tests.services.broker import Broker
from workers.control.presence import PresenceSweep


@pytest.fixture
def caller(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


def heartbeat(host: str, **more: Any) -> Heartbeat:
    values = {
        "host": host,
        "at": time.time(),
        "epoch": 1,
        "version": "0.1.0",
        "address": "edge.example",
        "port": 8000,
        "pid": 1,
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "loop_age_seconds": 0.1,
        "in_hand": 0,
        "queue_length": 0,
        "docker_reachable": True,
    }
    return Heartbeat.model_validate({**values, **more})


#: What a host could leave at its own key, whether by mistake or to harm others.
SPOILED = [
    b"",
    b"null",
    b"{}",
    b"\xff\xfe",
    b"[" * 5000,
    heartbeat("edge-1").model_dump_json().replace("edge-1", "edge-2").encode(),
    b'{"host": "edge-1", "at": NaN}',
    heartbeat("edge-1", at=5.5).model_dump_json().replace("5.5", "NaN").encode(),
    heartbeat("edge-1", at=5.5).model_dump_json().replace("5.5", "1e999").encode(),
]


def test_a_host_is_connected_while_its_key_exists(caller: "redis.Redis") -> None:
    assert presence.read(caller, ["edge-1"]) == {"edge-1": None}
    beat = heartbeat("edge-1")
    began = time.monotonic()
    presence.mark(caller, beat)
    assert presence.read(caller, ["edge-1", "edge-2"]) == {"edge-1": beat, "edge-2": None}
    assert presence.connected(caller, ["edge-1", "edge-2"]) == {"edge-1"}
    assert 33 - (time.monotonic() - began) < caller.ttl(names.presence("edge-1")) <= 35
    presence.clear(caller, "edge-1")
    assert presence.connected(caller, ["edge-1"]) == set()
    assert presence.read(caller, []) == {}
    assert presence.connected(caller, []) == set()


@pytest.mark.parametrize("value", SPOILED, ids=lambda value: repr(value[-20:]))
def test_a_heartbeat_that_cannot_be_read_hides_that_host_alone(caller: "redis.Redis", value: bytes) -> None:
    caller.set(names.presence("edge-1"), value)
    good = heartbeat("edge-2")
    presence.mark(caller, good)
    assert presence.read(caller, ["edge-1", "edge-2"]) == {"edge-1": None, "edge-2": good}


def test_a_key_of_another_type_hides_that_host_alone(caller: "redis.Redis") -> None:
    caller.lpush(names.presence("edge-1"), "x")
    good = heartbeat("edge-2")
    presence.mark(caller, good)
    assert presence.read(caller, ["edge-1", "edge-2"]) == {"edge-1": None, "edge-2": good}


def test_unknown_fields_of_newer_workers_are_ignored(caller: "redis.Redis") -> None:
    value = heartbeat("edge-1").model_dump(mode="json")
    caller.set(names.presence("edge-1"), Heartbeat.model_validate({**value, "gpu": 7}).model_dump_json())
    assert presence.read(caller, ["edge-1"])["edge-1"] is not None


def test_thousands_of_hosts_are_read_in_parts(caller: "redis.Redis") -> None:
    hosts = [f"edge-{number}" for number in range(2500)]
    with caller.pipeline(transaction=False) as pipe:
        for host in hosts[::2]:
            pipe.set(names.presence(host), heartbeat(host).model_dump_json())
        pipe.execute()
    assert {host for host, beat in presence.read(caller, hosts).items() if beat} == set(hosts[::2])
    assert presence.connected(caller, hosts) == set(hosts[::2])


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seen", "signed_off", "expected"),
    [
        (None, None, Presence.OFFLINE),
        (timedelta(seconds=20), None, Presence.STALE),
        (timedelta(seconds=36), None, Presence.STALE),
        (timedelta(seconds=120), None, Presence.STALE),
        (timedelta(seconds=121), None, Presence.OFFLINE),
        (timedelta(seconds=20), timedelta(seconds=10), Presence.OFFLINE),
        (timedelta(seconds=20), timedelta(seconds=30), Presence.STALE),
    ],
)
def test_without_a_key_the_time_of_silence_counts(
    seen: timedelta | None, signed_off: timedelta | None, expected: Presence
) -> None:
    host = Host(
        id="edge-1",
        enrolled_at=NOW,
        last_seen_at=None if seen is None else NOW - seen,
        signed_off_at=None if signed_off is None else NOW - signed_off,
    )
    assert presence.of(host, None, NOW) is expected
    assert presence.of(host, heartbeat("edge-1"), NOW) is Presence.ONLINE


@pytest.fixture
def sweep(engine: Engine, client: "redis.Redis") -> PresenceSweep:
    with db.session(engine) as session:
        for host in ("edge-1", "edge-2", "gone"):
            factories.enroll(session, host)
        inventory.host(session, "gone").membership = Membership.REVOKED.value
    return PresenceSweep(engine=engine, client=client)


def last_seen(engine: Engine, host: str) -> datetime | None:
    with db.session(engine, write=False) as session:
        return inventory.host(session, host).last_seen_at


def test_the_sweep_writes_down_what_is_new_and_nothing_else(
    sweep: PresenceSweep, engine: Engine, client: "redis.Redis"
) -> None:
    at = time.time() - 3
    presence.mark(client, heartbeat("edge-1", at=at))
    presence.mark(client, heartbeat("gone"))
    presence.mark(client, heartbeat("stranger"))
    assert sweep.run() == 1
    assert last_seen(engine, "edge-1") == clock.from_unix(at)
    assert last_seen(engine, "edge-2") is None
    assert last_seen(engine, "gone") is None
    assert sweep.run() == 0
    presence.mark(client, heartbeat("edge-1", at=at + 1))
    assert sweep.run() == 1
    presence.clear(client, "edge-1")
    assert sweep.run() == 0
    assert last_seen(engine, "edge-1") == clock.from_unix(at + 1)


@pytest.mark.parametrize("at", [4e9, 1e300, -1e300, 0.0, 1.0])
def test_no_host_is_seen_in_the_future_or_before_its_key_could_have_been_written(
    sweep: PresenceSweep, engine: Engine, client: "redis.Redis", at: float
) -> None:
    presence.mark(client, heartbeat("edge-1", at=at))
    presence.mark(client, heartbeat("edge-2"))
    assert sweep.run() == 2
    seen = last_seen(engine, "edge-1")
    assert seen is not None
    assert timedelta(seconds=-1) < clock.now() - seen < timedelta(seconds=60), "as long as a key lives, and this test"


def test_spoiled_heartbeats_do_not_stop_the_sweep(sweep: PresenceSweep, engine: Engine, client: "redis.Redis") -> None:
    for value in SPOILED:
        client.set(names.presence("edge-1"), value)
        presence.mark(client, heartbeat("edge-2"))
        assert sweep.run() == 1
    assert last_seen(engine, "edge-1") is None


def test_ten_thousand_hosts_are_swept_well_within_the_interval(
    sweep: PresenceSweep, engine: Engine, client: "redis.Redis"
) -> None:
    hosts = [f"many-{number}" for number in range(10_000)]
    with db.session(engine) as session:
        session.execute(insert(Host), [{"id": host, "enrolled_at": clock.now()} for host in hosts])
    beat = heartbeat("HOST").model_dump_json()
    with client.pipeline(transaction=False) as pipe:
        for host in hosts:
            pipe.set(names.presence(host), beat.replace("HOST", host))
        pipe.execute()
    began = time.process_time()
    assert sweep.run() == 10_000
    assert time.process_time() - began < 4, "less than the 5 s between sweeps, also on a busy machine"
