"""The ingestion loop: starting, stopping, outages of the broker and the database."""

import contextlib
import threading
from collections.abc import Iterator

import psycopg
import pytest
import redis
from sqlalchemy import Engine

from fleet import audit, db, logs, names
from tests import factories
from tests.services import database as databases
from tests.services.broker import Broker
from workers.control.ingest import Ingest


class SteadyLease:
    """A lease that outlives the broker's restart, as the control worker's does once it is renewed."""

    token = "control-1"

    def __init__(self) -> None:
        self.mine = True

    def held(self) -> bool:
        return self.mine


@pytest.fixture
def lease(client: "redis.Redis") -> SteadyLease:
    client.set(names.CONTROL_LEASE, SteadyLease.token)
    return SteadyLease()


@pytest.fixture
def ingest(engine: Engine, client: "redis.Redis", lease: SteadyLease) -> Iterator[Ingest]:
    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
    made = Ingest(engine=engine, client=client, lease=lease, voice=factories.voice(engine))
    yield made
    made.stop()
    assert made.stopped.is_set()


@contextlib.contextmanager
def watching(broker: Broker) -> Iterator["redis.client.PubSub"]:
    with broker.connect() as client, client.pubsub(ignore_subscribe_messages=True) as watcher:
        watcher.subscribe(names.WATCH)
        watcher.get_message(timeout=5)
        yield watcher


def heard(watcher: "redis.client.PubSub", count: int) -> None:
    """Wait until that many events have been published."""
    for _ in range(count):
        assert watcher.get_message(timeout=4.5) is not None


def pauses(caplog: pytest.LogCaptureFixture) -> int:
    return sum(isinstance(record.msg, logs.Event) and record.msg.name == "ingest.paused" for record in caplog.records)


def until_paused(ingest: Ingest, caplog: pytest.LogCaptureFixture) -> None:
    while not pauses(caplog):
        assert not ingest.stopped.wait(0.01)


def test_the_loop_takes_in_what_comes_and_stops_at_once(ingest: Ingest, broker: Broker, client: "redis.Redis") -> None:
    with watching(broker) as watcher:
        ingest.start()
        ingest.start()
        factories.push(client, *factories.life(names.new_run_id("edge-1")))
        heard(watcher, 4)
    ingest.stop()
    ingest.stop()
    assert [each.name for each in threading.enumerate() if each.name == "ingest"] == []


def test_a_loop_that_never_began_is_stopped(engine: Engine, client: "redis.Redis", lease: SteadyLease) -> None:
    made = Ingest(engine=engine, client=client, lease=lease, voice=factories.voice(engine))
    made.stop()
    assert made.stopped.is_set()


def test_without_the_lease_nothing_is_touched(
    ingest: Ingest, lease: SteadyLease, broker: Broker, client: "redis.Redis"
) -> None:
    lease.mine = False
    factories.push(client, *factories.life(names.new_run_id("edge-1")))
    client.delete(names.REPORTS_DIRTY)
    with watching(broker) as watcher:
        ingest.start()
        assert watcher.get_message(timeout=0.8) is None
        assert client.llen(names.reports("edge-1")) == 4
        lease.mine = True  # gaining it, every list is looked at
        heard(watcher, 4)


def test_reports_wait_while_the_broker_is_away(
    ingest: Ingest, broker: Broker, client: "redis.Redis", engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    ingest.start()
    broker.stop(kill=True)
    until_paused(ingest, caplog)
    broker.start()
    with watching(broker) as watcher:
        factories.push(client, *factories.life(names.new_run_id("edge-1")))
        heard(watcher, 4)
    assert pauses(caplog) == 1, "one outage, one line"
    with db.session(engine, write=False) as session:
        assert len(audit.events(session)) == 4


def test_reports_wait_while_the_database_is_away(  # noqa: PLR0917 - pytest gives them by name
    ingest: Ingest,
    broker: Broker,
    client: "redis.Redis",
    engine: Engine,
    backend: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ingest.start()
    with watching(broker) as watcher:
        with away(engine, backend):
            factories.push(client, *factories.life(names.new_run_id("edge-1")))
            until_paused(ingest, caplog)
            assert client.llen(names.reports("edge-1")) == 4
        heard(watcher, 4)
    assert pauses(caplog) == 1, "one outage, one line"
    with db.session(engine, write=False) as session:
        assert len(audit.events(session)) == 4
    assert client.llen(names.reports("edge-1")) == 0


@contextlib.contextmanager
def away(engine: Engine, backend: str) -> Iterator[None]:
    """Make the database refuse: PostgreSQL lets nobody in; in SQLite a table is missing."""
    if backend == "postgresql":
        name = engine.url.database
        with psycopg.connect(databases.SERVER, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
            yield
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        return
    with contextlib.closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute("ALTER TABLE report_cursor RENAME TO report_cursor_away")
        yield
        cursor.execute("ALTER TABLE report_cursor_away RENAME TO report_cursor")
