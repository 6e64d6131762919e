"""What a principal does with the broker, in small pieces, by the code that its program or command line runs."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pytest

from fleet import configuration, credentials, errors, names, policy
from fleet.broker import results
from fleet.cli import ps
from fleet.cli.policy import explaining
from fleet.client import Fleet
from fleet.contracts import registry
from fleet.contracts.output import Entry
from fleet.security import signing
from tests import factories
from tests.hostile.stage import HOST, Needs, Stage
from tests.services.locked import PRINCIPAL
from tests.services.waiting import until

REPORTS = names.reports(names.principal_sender(PRINCIPAL))


def push(stage: Stage) -> None:
    with _fleet(stage) as fleet:
        fleet.push("fleet.host.ping", on=HOST)
    assert stage.admin.llen(names.queue(HOST)) == 1
    assert stage.admin.llen(REPORTS) == 1
    assert stage.admin.smembers(names.REPORTS_DIRTY) == {"p:alice"}


def push_to_nobody(stage: Stage) -> None:
    with _fleet(stage) as fleet, pytest.raises(errors.HostNotEnrolled):
        fleet.dispatcher.require_host("h2", registry.get("fleet.host.ping"), queues=False)


def read_the_policy(stage: Stage) -> None:
    stage.admin.set(names.POLICY, policy.state("", 7, [factories.key("fleet")]))
    with _fleet(stage) as fleet:
        stated = explaining.policy_of(fleet)
    assert stated is not None
    assert stated.version == 7


def cancel(stage: Stage) -> None:
    with _fleet(stage) as fleet:
        fleet.cancel(names.new_run_id(HOST))
    assert stage.admin.llen(names.control(HOST)) == 1


def wait_for_the_record(stage: Stage) -> None:
    with _fleet(stage) as fleet:
        batch = fleet.push("fleet.host.ping", on=HOST)
        assert not fleet.recorded(batch, timeout=0)


def get_a_result(stage: Stage) -> None:
    with _fleet(stage) as fleet, ThreadPoolExecutor(1) as pool:
        waited = fleet.push("fleet.host.ping", on=HOST).results[0]
        reply = pool.submit(waited.get, timeout=stage.patience)
        until(lambda: _has_looked(stage) or reply.done(), "it has looked once, and waits")
        _answer(stage, waited.id)
        assert reply.result()["host"] == HOST
        channel = names.result(waited.id)
        until(lambda: not stage.admin.pubsub_numsub(channel)[0][1], "it waits no longer", timeout=stage.patience)


def look_at_a_result(stage: Stage) -> None:
    with _fleet(stage) as fleet:
        run = names.new_run_id(HOST)
        _answer(stage, run)
        assert fleet.dispatcher.result(run).state == "SUCCESS"


def get_a_result_over_a_broken_connection(stage: Stage) -> None:
    with _fleet(stage) as fleet, ThreadPoolExecutor(1) as pool:
        waited = fleet.push("fleet.host.ping", on=HOST).results[0]
        reply = pool.submit(waited.get, timeout=stage.patience)
        until(lambda: _has_looked(stage) or reply.done(), "it has looked once, and waits")
        with stage.admin.pipeline(transaction=True) as pipe:  # what comes now is not told to anybody
            pipe.client_kill_filter(_type="pubsub")
            pipe.set(names.result(waited.id), _result(waited.id))
            pipe.execute()
        assert reply.result()["host"] == HOST


def watch(stage: Stage) -> None:
    with _fleet(stage) as fleet, fleet.watch() as watching:
        stage.admin.publish(names.WATCH, json.dumps({"event": "news"}))
        assert next(watching.events(timeout=stage.patience)) == {"event": "news"}


def read_output(stage: Stage) -> None:
    run = names.new_run_id(HOST)
    _say(stage, run)
    with _fleet(stage) as fleet:
        assert [said.kind for said in fleet.output(run, follow=False)] == ["text"]


def follow_output(stage: Stage) -> None:
    run = names.new_run_id(HOST)
    _say(stage, run)
    with _fleet(stage) as fleet:
        following = iter(fleet.output(run))
        assert next(following).kind == "text"
        assert stage.admin.pubsub_numsub(names.output(run))[0][1] == 1


def see_containers(stage: Stage) -> None:
    stage.admin.set(names.inventory(HOST), json.dumps({"containers": []}))
    with _fleet(stage) as fleet:
        assert ps._inventories(fleet, [HOST]) == {HOST: []}


NEEDS: Needs = MappingProxyType(
    {
        "": {
            "+ping": push,
            "+time": push,
            "+multi": push,
            "+exec": push,
            "+client|setname": push,
            "+client|setinfo": push,
        },
        "fleet:h:*:q": {"%W~fleet:h:*:q": push, "+lpush": push, "+llen": push},
        "fleet:h:*:ctl": {"%W~fleet:h:*:ctl": cancel, "+lpush": cancel},
        "fleet:h:*:out:*": {"%R~fleet:h:*:out:*": read_output, "+xread": read_output},
        "fleet:presence:*": {"%R~fleet:presence:*": push, "+exists": push},
        "fleet:inventory:*": {"%R~fleet:inventory:*": see_containers, "+mget": see_containers},
        "fleet:reports:p:alice": {"~fleet:reports:p:alice": push, "+lpush": push, "+lpos": wait_for_the_record},
        "fleet:reports:dirty": {"%W~fleet:reports:dirty": push, "+sadd": push},
        "fleet:hosts": {
            "%R~fleet:hosts": push,
            "+hget": push,
            "+hgetall": push,
            "+hkeys": push_to_nobody,
        },
        "fleet:principals": {"%R~fleet:principals": push, "+hget": push},
        "fleet:trust": {"%R~fleet:trust": push, "%R~fleet:policy": read_the_policy, "+get": push},
        "celery-task-meta-*:*": {
            "%R~celery-task-meta-*:*": look_at_a_result,
            "+get": look_at_a_result,
            "+mget": get_a_result_over_a_broken_connection,
        },
        "&celery-task-meta-*:*": {
            "&celery-task-meta-*:*": get_a_result,
            "&fleet:h:*:out:*": follow_output,
            "&fleet:watch": watch,
            "+subscribe": watch,
            "+unsubscribe": get_a_result,
        },
    }
)


@contextmanager
def _fleet(stage: Stage) -> Iterator[Fleet]:
    """Open the principal's fleet, in which one host is enrolled and connected."""
    own = configuration.load(state_dir=stage.directory, principal=PRINCIPAL)
    held = factories.principal_credential(PRINCIPAL, broker_url=stage.address.url)
    credentials.save_principal(own.principal_path(PRINCIPAL), held)
    stage.admin.set(names.TRUST, factories.statement())
    stage.admin.hset(names.PRINCIPALS, PRINCIPAL, held.credential)
    stage.admin.hset(names.HOSTS, HOST, factories.entry(HOST))
    stage.admin.set(names.presence(HOST), "a heartbeat")
    fleet = Fleet(own)
    try:
        yield fleet
    finally:
        fleet.close()


def _has_looked(stage: Stage) -> bool:
    return any(each["user"] == stage.user and each["cmd"] == "get" for each in stage.admin.client_list())


def _say(stage: Stage, run: str) -> None:
    entry = Entry(attempt=1, number=1, at=1.0, kind="text", data={"pieces": [["stdout", "hello\n"]]})
    credential = factories.ring().issue(factories.identity(HOST))
    fields: Any = signing.sign_output(run, entry.model_dump_json(), factories.key(HOST), credential)
    stage.admin.xadd(names.output(run), fields, id="1-1")


def _result(run: str) -> str:
    reply: dict[str, Any] = {"host": HOST, "echo": "", "time": 1.0}
    meta = results.success_meta(run, reply, date_done="2026-01-01T00:00:00+00:00")
    return signing.sign_result(meta, factories.key(HOST), factories.ring().issue(factories.identity(HOST)))


def _answer(stage: Stage, run: str) -> None:
    stage.admin.set(names.result(run), _result(run))
    stage.admin.publish(names.result(run), _result(run))
