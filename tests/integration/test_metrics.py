"""Metrics: what Prometheus reads from a control worker, and what it reads when that cannot see."""

import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from fleet import approvals, clock, db, errors, inventory, names, presence, runs
from fleet.contracts.governed import Approved, Waiting
from fleet.contracts.presence import Heartbeat
from fleet.local.exposition import MOST_CONTRACTS
from fleet.models import Approval, Host, Run
from tests import factories
from tests.services import asking, governed
from tests.services.broker import Broker
from tests.services.ports import free_port
from tests.services.system import System
from tests.services.waiting import until
from workers.control import metrics

Samples = dict[tuple[str, str], float]


def scrape(port: int) -> Samples:
    """Read all metrics: name and the value of its label → number."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(read(port))
        for sample in family.samples
    }


def read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        page: str = answer.read().decode()
        return page


def one(family: Metric) -> float:
    [sample] = family.samples
    return float(sample.value)


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


def test_what_waits_for_approval_is_counted(port: int, engine: Engine) -> None:
    assert scrape(port)["fleet_approvals_waiting", ""] == 0
    with db.session(engine) as session:
        for answers in ((), (), (governed.approved(),)):
            reports = governed.told(names.new_run_id("edge-1"), governed.awaiting(), *answers)
            runs.apply_many(session, reports)
            models = (Waiting, Approved)
            said = [model.model_validate(each.data) for model, each in zip(models, reports, strict=False)]
            approvals.take(session, list(zip(reports, said, strict=True)))
    found = scrape(port)
    assert (found["fleet_approvals_waiting", ""], found["fleet_runs", "awaiting_approval"]) == (2, 2)


def test_ages_of_what_waits_are_told(port: int, engine: Engine, client: "redis.Redis") -> None:
    now, later = time.time(), time.time() + 3600
    with db.session(engine) as session:
        for host in ("edge-1", "edge-2"):
            factories.enroll(session, host)
        first, second, postponed = (names.new_run_id(host) for host in ("edge-1", "edge-1", "edge-2"))
        reports = [factories.queued(run) for run in (first, second, postponed)]
        runs.apply_many(session, reports)
        session.get_one(Run, first).submitted_at = clock.from_unix(now - 500)
        session.get_one(Run, second).submitted_at = clock.from_unix(now - 100)
        session.get_one(Run, postponed).submitted_at = clock.from_unix(now - 9000)
        session.get_one(Run, postponed).not_before = clock.from_unix(later)
        asked = names.new_run_id("edge-1")
        waits = governed.told(asked, governed.awaiting())
        runs.apply_many(session, waits)
        approvals.take(session, [(waits[0], Waiting.model_validate(waits[0].data))])
        session.get_one(Approval, asked).asked_at = clock.from_unix(now - 700)
    found = scrape(port)
    assert found["fleet_queue_age_seconds", "edge-1"] == pytest.approx(500, abs=60)
    assert found["fleet_queue_age_seconds", "edge-2"] == 0, "what may not begin yet does not wait for its host"
    assert found["fleet_queue_age_seconds_max", ""] == found["fleet_queue_age_seconds", "edge-1"]
    assert found["fleet_approval_age_seconds_max", ""] == pytest.approx(700, abs=60)


def test_the_largest_and_the_sum_are_those_of_all_hosts(port: int, engine: Engine, client: "redis.Redis") -> None:
    with db.session(engine) as session:
        for host in ("edge-1", "edge-2"):
            factories.enroll(session, host)
    presence.mark(client, heartbeat("edge-1"))
    other = heartbeat("edge-2").model_copy(update={"outbox_length": 9, "clock_skew_seconds": 0.5})
    presence.mark(client, other)
    found = scrape(port)
    assert (found["fleet_outbox_backlog_max", ""], found["fleet_outbox_backlog_all", ""]) == (9, 13)
    assert found["fleet_clock_skew_seconds_max", ""] == -1.5, "the one that is furthest off"
    assert ("fleet_clock_skew_seconds_all", "") not in found


def test_a_page_of_many_hosts_and_contracts_stays_small(port: int, engine: Engine, client: "redis.Redis") -> None:
    hosts = [f"edge-{number:05}" for number in range(metrics.MOST_HOSTS + 300)]
    strange = ['a"} 1\nfleet_hosts{presence="online', "a\\b", "\u202eevil", "x" * 1000, "", "\x1b[31m"]
    tasks = [
        *strange,
        *(f"acme.task_{number}" for number in range(400)),
        *["fleet.host.ping"] * 3,
        "acme.most",
        "acme.most",
    ]
    with db.session(engine) as session:
        for host in hosts:
            session.add(Host(id=host, enrolled_at=clock.now()))
        for task in tasks:
            session.add(
                Run(
                    id=names.new_run_id(hosts[0]), host_id=hosts[0], task=task, state="queued", submitted_at=clock.now()
                )
            )
    last = heartbeat(hosts[-1]).model_copy(update={"outbox_length": 77})
    presence.mark(client, last)
    page = read(port)
    families = {family.name: family for family in text_string_to_metric_families(page)}
    per_host = [family for family in families.values() if any("host" in sample.labels for sample in family.samples)]
    assert per_host
    assert all(len(family.samples) <= metrics.MOST_HOSTS for family in per_host)
    assert one(families["fleet_hosts_left_out"]) == 300
    assert one(families["fleet_outbox_backlog_max"]) == 77, "also of a host without series of its own"
    counted = {sample.labels["contract"]: sample.value for sample in families["fleet_contract_runs"].samples}
    assert len(counted) == MOST_CONTRACTS + 1
    assert (counted["fleet.host.ping"], counted["acme.most"]) == (3, 2)
    assert sum(counted.values()) == len(tasks)
    presences = {sample.labels["presence"] for sample in families["fleet_hosts"].samples}
    assert presences == {"online", "stale", "offline", "unlisted"}, "no label has made a sample of its own"
    assert len(page.splitlines()) < 6 * metrics.MOST_HOSTS * 2


def test_what_a_page_holds_is_named_as_prometheus_wants_it(port: int, engine: Engine) -> None:
    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
    for family in text_string_to_metric_families(read(port)):
        assert family.name.startswith("fleet_")
        assert family.documentation, family.name
        assert family.type == "gauge"
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), family.name


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
    found = scrape(free)
    assert found["fleet_observed", ""] == 1
    loops = {label for name, label in found if name == "fleet_control_loop_age_seconds"}
    assert {"beat", "slow-beat", "ingest", "enrollment"} >= loops
    until(lambda: scrape(free).get(("fleet_lease_held", "")) == 1, "it holds the lease")
    until(lambda: scrape(free).get(("fleet_ingest_lag_seconds", "")) == 0, "nothing waits to be taken in")
    assert control.stop() == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_reports_that_cannot_be_taken_in_are_a_lag_that_grows(system: System) -> None:
    free = free_port()
    control = system.run("control", FLEET_METRICS_ADDRESS=f"127.0.0.1:{free}")
    until(lambda: "lease.gained" in control.log.read_text(), "it writes the ledger")
    with db.session(system.engine) as session:
        session.execute(text("SELECT 1"))  # with which the writing transaction begins: nobody else writes meanwhile
        system.redis.lpush(names.reports("p:alice"), "{}")
        system.redis.sadd(names.REPORTS_DIRTY, "p:alice")
        until(lambda: scrape(free).get(("fleet_ingest_lag_seconds", ""), 0) > 1, "it lags")
    until(lambda: scrape(free).get(("fleet_ingest_lag_seconds", "")) == 0, "it has taken them in", timeout=60)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_host_tells_of_itself_alone(system: System) -> None:
    system.start_control()
    for host in ("h1", "h2"):
        system.enroll(host)
    system.start_worker("h1")
    address = asking.listening(system, "h1")
    page = until(
        lambda: page if "fleet_worker_queue_length" in (page := asking.get(address, "/metrics")[1]) else "",
        "it has a heartbeat",
    )
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert "h2" not in page
    health = {sample.labels["question"]: sample.value for sample in families["fleet_worker_health"].samples}
    assert set(health) == {"live", "healthy", "ready"}
    assert one(families["fleet_worker_loop_age_seconds"]) < 30
    for name in ("runs_in_hand", "outbox_backlog", "outbox_unacknowledged", "dead_letters", "broker_silence_seconds"):
        assert one(families[f"fleet_worker_{name}"]) >= 0
    [info] = families["fleet_worker_info"].samples
    assert info.labels["availability"] == "active"
    assert all(family.documentation and family.type == "gauge" for family in families.values())
    run = system.fleet.push(
        "fleet.host.ping", on="h1", countdown=timedelta(hours=1), expires=timedelta(hours=2)
    ).run_ids[0]

    def waits() -> bool:
        found = asking.get(address, "/metrics")[1]
        return 'fleet_worker_runs{contract="fleet.host.ping",state="accepted"} 1.0' in found

    until(waits, f"{run} waits in the journal")


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("wrong", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:x"])
def test_an_address_that_is_none_is_told_in_one_line(system: System, wrong: str) -> None:
    done = system.run("control", FLEET_METRICS_ADDRESS=wrong)
    assert done.process.wait(30) == 2
    assert "write ADDRESS:PORT, such as 127.0.0.1:9464" in done.log.read_text()
    assert "Traceback" not in done.log.read_text()
