"""How many reports a second are taken in: `python -m tests.bench.ingest [RUNS]`, Valkey and both databases.

A run is five reports: queued by a principal, and accepted, started, progressed, succeeded by one of 20 hosts, which
signs those four together. Measured from the first look at the broker to the last removal and publication: reading,
checking signatures and reports, the transaction with ledger and audit chain, removal and acknowledgement.
"""

import sys
import tempfile
import time
import uuid
from pathlib import Path

import psycopg
import redis

from fleet import audit, db, names
from fleet.contracts.reports import Report
from tests import factories
from tests.services import broker as brokers
from tests.services import database as databases
from workers.control.ingest import Ingest

HOSTS = 20


def load(client: "redis.Redis", runs: int) -> int:
    """Fill the broker's lists; return how many reports lie there."""
    lists: dict[str, list[str]] = {}

    def add(*reports: Report) -> int:
        lists.setdefault(reports[0].sender, []).append(factories.signed(*reports))
        return len(reports)

    count = 0
    seqs = dict.fromkeys((f"edge-{index}" for index in range(HOSTS)), 1)
    for index in range(runs):
        host = f"edge-{index % HOSTS}"
        run = names.new_run_id(host)
        count += add(factories.queued(run)) + add(*factories.life(run, first_seq=seqs[host]))
        seqs[host] += 4
    for sender, items in lists.items():
        client.lpush(names.reports(sender), *items)
        client.sadd(names.REPORTS_DIRTY, sender)
    return count


def measure(url: str, broker: brokers.Broker, runs: int) -> tuple[int, float, float]:
    """Return the number of reports, the seconds that they took, and how many of those on this process's processor."""
    engine = db.open_engine(url)
    db.migrate(engine)
    with db.session(engine) as session:
        for index in range(HOSTS):
            factories.enroll(session, f"edge-{index}")
        factories.introduce(session, "alice")
    with broker.connect() as client:
        client.flushall()
        count = load(client, runs)
        lease = factories.HeldLease(client)
        ingest = Ingest(engine=engine, client=client, lease=lease, voice=factories.voice(engine))
        begin, begin_busy = time.perf_counter(), time.process_time()
        while ingest.step():
            pass
        seconds, busy = time.perf_counter() - begin, time.process_time() - begin_busy
    with db.session(engine, write=False) as session:
        assert audit.verify(session) is None
        newest = audit.events(session, limit=1)[0]
        assert newest.id == count, f"{newest.id} events of {count} reports"
    engine.dispose()
    return count, seconds, busy


def main(runs: int) -> None:
    name = f"fleet_bench_{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as directory:
        for broker in brokers.serve("valkey", Path(directory)):
            for label, url in (("SQLite", f"sqlite:///{directory}/fleet.db"), ("PostgreSQL", databases.url_of(name))):
                if label == "PostgreSQL":
                    try:
                        databases.administer(f"CREATE DATABASE {name}")
                    except psycopg.OperationalError as exc:
                        print(f"PostgreSQL  not measured: {exc}")
                        continue
                count, seconds, busy = measure(url, broker, runs)
                print(f"{label:<11} {count} reports in {seconds:.2f} s (busy {busy:.2f} s): {count / seconds:,.0f}/s")
                if label == "PostgreSQL":
                    databases.administer(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)
