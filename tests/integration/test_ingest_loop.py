"""The ingestion loop: starting, stopping, outages of the broker and the database."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator

import psycopg
import pytest
import redis
from sqlalchemy import Engine, event

from fleet import audit, db, logs, names
from tests import factories
from tests.services import database as databases
from tests.services.broker import Broker
from tests.services.waiting import until
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
        watcher.get_message(timeout=30)
        yield watcher


def heard(watcher: "redis.client.PubSub", count: int) -> None:
    """Wait until that many events have been published."""
    for _ in range(count):
        assert watcher.get_message(timeout=30) is not None


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


def test_what_keeps_it_from_recording_is_told_until_a_turn_goes_through(
    ingest: Ingest, lease: SteadyLease, client: "redis.Redis", engine: Engine, backend: str
) -> None:
    ingest.start()
    assert ingest.trouble() is None
    with unwritable(engine, backend):
        for first in range(1, 401, 4):  # more than fits into its last pages
            factories.push(client, *factories.life(names.new_run_id("edge-1"), first_seq=first))
        trouble = until(ingest.trouble, "it knows that it records nothing")
        wrong = {"sqlite": "has no space left on its disk", "postgresql": "can only be read"}[backend]
        assert wrong in trouble.reason
        until(lambda: (now := ingest.trouble()) and now.seconds > 2, "it counts from the first turn that failed")
        until(lambda: (age := ingest.age()) is not None and age < 2, "it ticks all the while")
        lease.mine = False
        assert ingest.trouble() is None, "what another one records is not its own trouble"
        lease.mine = True
    until(lambda: ingest.trouble() is None, "it goes on", timeout=30)
    until(lambda: not client.llen(names.reports("edge-1")), "what has waited is recorded", timeout=30)


def test_a_fault_of_its_own_is_trouble_without_a_word_of_a_report(
    engine: Engine, client: "redis.Redis", lease: SteadyLease
) -> None:
    class Unable:
        def words(self, said: object) -> None:
            raise RuntimeError("s3cret of a report")

    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
    made = Ingest(engine=engine, client=client, lease=lease, voice=Unable())  # type: ignore[arg-type]
    made.start()
    try:
        factories.push(client, *factories.life(names.new_run_id("edge-1")))
        trouble = until(made.trouble, "it knows that it fails")
        assert trouble.reason == "a fault of Fleet's own, builtins.RuntimeError: see ingest.failed in the log"
    finally:
        made.stop()


@contextlib.contextmanager
def unwritable(engine: Engine, backend: str) -> Iterator[None]:
    """Let the database be read and not written: SQLite may not grow any more, PostgreSQL is as one that stands by."""
    if backend == "postgresql":
        with psycopg.connect(databases.SERVER, autocommit=True) as admin:
            name = engine.url.database
            for state in ("on", "off"):
                admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {state}")
                admin.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,)
                )
                if state == "on":
                    yield
        return

    def fill(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes it for as many as there are

    with contextlib.closing(engine.raw_connection()) as connection:
        connection.cursor().execute("VACUUM")  # migrations leave pages that are free
    event.listen(engine, "connect", fill)
    engine.dispose()
    yield
    event.remove(engine, "connect", fill)
    engine.dispose()


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
