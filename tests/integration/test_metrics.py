"""Metrics: what Prometheus reads from a control worker, and what it reads when that cannot see."""

import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from fleet import clock, db, errors, inventory, names, presence, runs
from fleet.contracts.presence import Heartbeat
from tests import factories
from tests.services.broker import Broker
from tests.services.ports import free_port
from tests.services.system import System
from tests.services.waiting import until
from workers.control import metrics

Samples = dict[tuple[str, str], float]


def scrape(port: int) -> Samples:
    """Read all metrics: name and the value of its label → number."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def port(engine: Engine, client: "redis.Redis") -> Iterator[int]:
    with metrics.serve("127.0.0.1:0", engine=engine, client=client) as opened:
        yield opened


def heartbeat(host: str) -> Heartbeat:
    return Heartbeat(
        host=host,
        at=1.0,
        epoch=1,
        version="0.1.0",
        address="edge.example",
        port=8000,
        pid=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        loop_age_seconds=None,
        in_hand=0,
        queue_length=0,
        docker_reachable=True,
        outbox_length=4,
        recovering=2,
        dead_letters=3,
        clock_skew_seconds=-1.5,
    )


def test_hosts_runs_and_queues_are_told(port: int, engine: Engine, client: "redis.Redis") -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        for host in ("edge-1", "edge-2", "edge-3"):
            factories.enroll(session, host)
        inventory.host(session, "edge-2").last_seen_at = clock.from_unix(time.time() - 60)
        runs.apply_many(session, [factories.queued(run), factories.queued(names.new_run_id("edge-2"))])
        runs.apply_many(session, factories.life(run)[:2])
    presence.mark(client, heartbeat("edge-1"))
    client.lpush(names.queue("edge-2"), "a", "b")
    found = scrape(port)
    expected = {
        ("fleet_observed", ""): 1,
        ("fleet_dead_letters", "edge-1"): 3,
        ("fleet_outbox_backlog", "edge-1"): 4,
        ("fleet_clock_skew_seconds", "edge-1"): -1.5,
        ("fleet_runs_recovering", "edge-1"): 2,
        ("fleet_queue_length", "edge-2"): 2,
        ("fleet_runs", "queued"): 1,
        ("fleet_runs", "running"): 1,
        ("fleet_runs", "unknown"): 0,
        ("fleet_hosts", "online"): 1,
        ("fleet_hosts", "stale"): 1,
        ("fleet_hosts", "offline"): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert ("fleet_loop_age_seconds", "edge-1") not in found, "its loop has not ticked yet"


def test_a_fleet_without_hosts_is_told_as_well(port: int) -> None:
    assert scrape(port)["fleet_hosts", "online"] == 0


def test_what_cannot_be_seen_is_not_guessed(port: int, broker: Broker, engine: Engine) -> None:
    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
    broker.stop()
    assert scrape(port) == {("fleet_observed", ""): 0}
    broker.start()
    assert scrape(port)["fleet_observed", ""] == 1


def test_an_address_that_is_taken_is_named(port: int, engine: Engine, client: "redis.Redis") -> None:
    address = f"127.0.0.1:{port}"
    with (
        pytest.raises(errors.LocalFault, match=f"metrics: cannot listen on {address}"),
        metrics.serve(address, engine=engine, client=client),
    ):
        pass


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_control_worker_serves_them_where_it_is_told_to(system: System) -> None:
    free = free_port()
    control = system.run("control", FLEET_METRICS_ADDRESS=f"127.0.0.1:{free}")
    until(lambda: "control.started" in control.log.read_text(), "it has started")
    assert scrape(free)["fleet_observed", ""] == 1
    assert control.stop() == 0


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("wrong", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:x"])
def test_an_address_that_is_none_is_told_in_one_line(system: System, wrong: str) -> None:
    done = system.run("control", FLEET_METRICS_ADDRESS=wrong)
    assert done.process.wait(20) == 2
    assert "write ADDRESS:PORT, such as 127.0.0.1:9464" in done.log.read_text()
    assert "Traceback" not in done.log.read_text()
