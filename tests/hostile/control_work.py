"""What the control plane does with the broker, in small pieces, by the code of its workers and of its command line."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from sqlalchemy import Engine

from beat.lease import Lease
from fleet import availability, clock, db, enrollment, joining, members, names, policies, presence, runs
from fleet.api.plane import Control
from fleet.broker import connection
from fleet.cli import checks
from fleet.contracts.hosts import Availability
from fleet.contracts.reports import Kind, Report
from tests import factories
from tests.hostile.host_work import heartbeat
from tests.hostile.stage import HOST, Needs, Stage
from tests.services.locked import PRINCIPAL, hashes
from workers.control.enrollment import EnrollmentDesk
from workers.control.ingest import Ingest
from workers.control.metrics import FleetObserver
from workers.control.news import News
from workers.control.rescue import Rescue
from workers.control.settling import Settling

QUEUE, CONTROL_LIST = names.queue(HOST), names.control(HOST)
#: As many as the rescue looks for at once instead of one by one.
MANY = 20


def check_the_broker(stage: Stage) -> None:
    client = stage.client()
    assert connection.check(client, stage.address)
    assert connection.check_durability(client, stage.address) == []


def try_a_connection_that_was_idle(stage: Stage) -> None:
    """As redis-py does of itself after ten seconds, which is often with metrics; `fleet up` also asks like that."""
    client: Any = stage.client()
    client.time()
    held = client.connection_pool.get_connection()
    held.next_health_check = 0
    client.connection_pool.release(held)
    client.time()


def hold_the_lease(stage: Stage) -> None:
    lease = Lease(stage.client(), key=names.CONTROL_LEASE)
    assert [lease.attempt(), lease.attempt()] == [True, True]
    lease.release()
    assert not stage.admin.exists(names.CONTROL_LEASE)


def leave_the_lease_to_another(stage: Stage) -> None:
    stage.admin.set(names.CONTROL_LEASE, "another's")
    assert not Lease(stage.client(), key=names.CONTROL_LEASE).attempt()


def take_in_reports(stage: Stage) -> None:
    with _members(stage) as engine:
        run = names.new_run_id(HOST)
        factories.push(stage.admin, _queued(run), *factories.life(run))
        assert _ingest(stage, engine).step()
    assert not stage.admin.exists(names.reports(HOST), names.reports(names.principal_sender(PRINCIPAL)))
    assert factories.heard(stage.admin, HOST, "reports.acknowledged")


def look_for_lists_without_a_mark(stage: Stage) -> None:
    with _members(stage) as engine:
        run = names.new_run_id(HOST)
        for look in (News.scan, News.sweep):
            factories.push(stage.admin, _queued(run), *factories.life(run))
            stage.admin.delete(names.REPORTS_DIRTY)
            ingest = _ingest(stage, engine)
            look(ingest.news)
            assert ingest.step()


def tell_watchers(stage: Stage) -> None:
    admin: Any = stage.admin
    with _members(stage) as engine, admin.pubsub(ignore_subscribe_messages=True) as watching:
        watching.subscribe(names.WATCH)
        watching.get_message(ignore_subscribe_messages=False, timeout=stage.patience)
        factories.push(stage.admin, _queued(names.new_run_id(HOST)))
        _ingest(stage, engine).step()
        told = watching.get_message(timeout=stage.patience)
        assert json.loads(told["data"])["event"] == "run.queued"


def cancel_what_waits(stage: Stage) -> None:
    with _members(stage) as engine:
        run = names.new_run_id(HOST)
        report = _queued(run)
        asked = report.model_copy(update={"kind": Kind.RUN_CANCEL_REQUESTED, "data": {"reason": "wrong host"}})
        stage.admin.lpush(QUEUE, _message(run))
        factories.push(stage.admin, report, asked)
        ingest = _ingest(stage, engine)
        ingest.step()
        ingest.errands.run()
    assert not stage.admin.exists(QUEUE)
    assert stage.admin.exists(names.result(run))


def end_what_somebody_else_has_withdrawn(stage: Stage) -> None:
    with _members(stage) as engine:
        [run] = _pushed(engine, 1)
        verdict = {"run": run, "state": "expired", "kind": "expired", "message": "too late", "attempt": 1}
        stage.admin.hset(names.WITHDRAWN, run, json.dumps({**verdict, "expected": ["queued"]}))
        Settling(engine=engine, client=stage.client(), voice=factories.voice(engine)).resume(now=time.time())
    assert stage.admin.exists(names.result(run))
    assert not stage.admin.exists(names.WITHDRAWN)


def send_again_what_was_lost(stage: Stage) -> None:
    with _members(stage) as engine:
        [run] = _pushed(engine, 1)
        stage.admin.set(names.epoch(HOST), 1)
        _rescue(stage, engine).run()
    assert stage.admin.lrange(QUEUE, 0, -1) == [_message(run)]


def leave_alone_what_waits(stage: Stage) -> None:
    with _members(stage) as engine:
        waiting = [_message(run) for run in _pushed(engine, MANY)]
        stage.admin.lpush(QUEUE, *waiting)
        _rescue(stage, engine).run()
    assert stage.admin.llen(QUEUE) == MANY


def tell_metrics(stage: Stage) -> None:
    with _members(stage) as engine:
        stage.admin.lpush(QUEUE, "message")
        found = {each.name: each for each in FleetObserver(engine=engine, client=stage.client()).look()}
        assert [each.value for each in found["fleet_queue_length"].samples] == [1.0]


def enroll(stage: Stage) -> None:
    with _members(stage) as engine, ThreadPoolExecutor(1) as pool:
        client = stage.client()
        with db.session(engine) as session:
            text = enrollment.create_token(
                session, ring=factories.ring(), broker_url=stage.broker.url, created_by=PRINCIPAL
            )
            members.admit_token(session, client, factories.ring(), text)
        joined = pool.submit(
            joining.join, text, host="h2", version="test", patience=timedelta(seconds=stage.patience / 4)
        )
        stage.admin.lpush(names.control("h2"), "said to a former machine")
        desk = EnrollmentDesk(engine=engine, client=client, keyrings=factories.HeldKeyrings())
        answer = None
        while answer is None and not joined.done():
            answer = (item := desk._take()) and desk.serve(item)
        assert joined.result().host == "h2"
        assert not stage.admin.exists(names.control("h2"))


def set_the_broker_up(stage: Stage) -> None:
    """As whenever the broker has started anew; it has a user, a host and a principal that are no members."""
    stage.admin.acl_setuser("h-stranger")
    stage.admin.hset(names.HOSTS, "stranger", "entry")
    stage.admin.hset(names.PRINCIPALS, "stranger", "credential")
    with _members(stage) as engine, db.session(engine) as session:
        policies.set_policy(session, "", by=PRINCIPAL)
        changes = members.reconcile(session, stage.client(), factories.ring())
    assert (changes.added, changes.removed) == ((f"h-{HOST}",), ("h-stranger",))
    assert stage.admin.hkeys(names.HOSTS) == [HOST]
    assert stage.admin.hkeys(names.PRINCIPALS) == [PRINCIPAL]
    assert stage.admin.exists(names.TRUST, names.POLICY) == 2


def revoke_a_host(stage: Stage) -> None:
    with _members(stage) as engine, ThreadPoolExecutor(1) as pool:
        left = (QUEUE, names.inbox(HOST, 7), names.dead(HOST))
        for key in left:
            stage.admin.lpush(key, "left")
        pool.submit(stage.admin.brpop, [CONTROL_LIST], 1)  # the host hears it
        with db.session(engine) as session:
            members.revoke_host(session, stage.client(), factories.ring(), HOST, by=PRINCIPAL)
    assert not stage.admin.exists(*left)


def pause_a_host(stage: Stage) -> None:
    presence.mark(stage.admin, heartbeat(epoch=1))
    client, ring = stage.client(), factories.ring()
    with _members(stage) as engine:

        @contextmanager
        def opened() -> Iterator[Control]:
            with db.session(engine) as session:
                yield Control(session=session, client=client, ring=ring)

        availability.set(opened, [HOST], Availability.PAUSED, by=PRINCIPAL)
        with db.session(engine) as session:
            assert availability.remind(session, client, ring) == 1
    assert len(factories.heard(stage.admin, HOST, "host.availability")) == 2


def look_after_the_broker(stage: Stage) -> None:
    """As `fleet doctor` does, and `fleet health` in part."""
    client = stage.client()
    [found] = checks._control(client)
    assert found.text == "no control worker holds the lease; 0 senders have reports waiting"
    stage.admin.hset(names.HOSTS, HOST, factories.entry(HOST))
    [found] = checks._hosts(client)
    assert found.text == f"0 of 1 online; not connected: {HOST}"


NEEDS: Needs = MappingProxyType(
    {
        "": {
            "~fleet:*": hold_the_lease,
            "+ping": try_a_connection_that_was_idle,
            "+time": tell_metrics,
            "+multi": hold_the_lease,
            "+exec": hold_the_lease,
            "+unwatch": leave_the_lease_to_another,
            "+client|setname": check_the_broker,
            "+client|setinfo": check_the_broker,
            "+info": check_the_broker,
            "+scan": look_for_lists_without_a_mark,
            "+pubsub|numsub": tell_watchers,
            "+config|get": set_the_broker_up,
            "+acl|setuser": set_the_broker_up,
            "+acl|deluser": set_the_broker_up,
            "+acl|users": set_the_broker_up,
            "+acl|save": set_the_broker_up,
            "+lpush": send_again_what_was_lost,
            "+llen": look_for_lists_without_a_mark,
            "+lpos": cancel_what_waits,
            "+lrange": take_in_reports,
            "+lrem": cancel_what_waits,
            "+watch": hold_the_lease,
            "+del": revoke_a_host,
            "+mget": tell_metrics,
            "+exists": look_after_the_broker,
            "+ltrim": take_in_reports,
            "+spop": take_in_reports,
            "+scard": look_after_the_broker,
            "+hset": set_the_broker_up,
            "+hdel": set_the_broker_up,
            "+hkeys": set_the_broker_up,
            "+set": hold_the_lease,
            "+brpop": enroll,
            "+expire": enroll,
            "+get": hold_the_lease,
            "+pexpire": hold_the_lease,
            "+hgetall": end_what_somebody_else_has_withdrawn,
        },
        "celery-task-meta-*:*": {
            "~celery-task-meta-*:*": cancel_what_waits,
            "+set": cancel_what_waits,
            "+get": cancel_what_waits,
        },
        "&celery-task-meta-*:*": {
            "&celery-task-meta-*:*": cancel_what_waits,
            "&fleet:watch": tell_watchers,
            "+publish": cancel_what_waits,
        },
    }
)
#: These are for the table alone, which has the commands of each key: the rules have them of all keys together.
MORE_WORKS = (leave_alone_what_waits, pause_a_host)


@cache
def _empty_database() -> bytes:
    """Return an SQLite file with the newest schema, made once."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "fleet.db"
        engine = db.open_engine(f"sqlite:///{path}")
        db.migrate(engine)
        engine.dispose()
        return path.read_bytes()


@contextmanager
def _members(stage: Stage) -> Iterator[Engine]:
    """Open a database in which one host and one principal are members."""
    path = stage.directory / "fleet.db"
    path.write_bytes(_empty_database())
    engine = db.open_engine(f"sqlite:///{path}")
    try:
        with db.session(engine) as session:
            factories.found(session)
            long_ago = clock.from_unix(1_700_000_000)  # what was pushed to a former host of that name is not sent again
            factories.enroll(session, HOST, at=long_ago).broker_hashes = hashes(f"h-{HOST}")
            factories.introduce(session, PRINCIPAL)
        yield engine
    finally:
        engine.dispose()


def _ingest(stage: Stage, engine: Engine) -> Ingest:
    lease = factories.HeldLease(stage.admin)
    return Ingest(engine=engine, client=stage.client(), lease=lease, voice=factories.voice(engine))


def _rescue(stage: Stage, engine: Engine) -> Rescue:
    lease = factories.HeldLease(stage.admin)
    return Rescue(engine=engine, client=stage.client(), lease=lease, voice=factories.voice(engine))


def _message(run: str) -> str:
    return json.dumps({"body": run})


def _queued(run: str) -> Report:
    """Return the report of a push of an hour ago."""
    return factories.queued(run, by=PRINCIPAL, submitted_at=time.time() - 3600)


def _pushed(engine: Engine, count: int) -> list[str]:
    """Record pushes; return the ids of their runs."""
    pushed = [names.new_run_id(HOST) for _ in range(count)]
    with db.session(engine) as session:
        runs.apply_many(session, [_queued(run) for run in pushed])
    return pushed
