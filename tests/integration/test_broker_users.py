"""Broker users on real servers: made, replaced, deleted, kept over a restart, and cut off while they wait."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from fleet import address, errors, names
from fleet.broker.connection import connect
from fleet.security import acl, broker_users
from tests.services.broker import ADMIN, ADMIN_PASSWORD, Broker
from tests.services.ports import free_port
from tests.services.waiting import until

SECRET = "secret"
HASH = hashlib.sha256(SECRET.encode()).hexdigest()
MANY = 10_000


@pytest.fixture
def caller(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@contextmanager
def _as(broker: Broker, user: str, password: str = SECRET, *, timeout: int = 30) -> Iterator["redis.Redis"]:
    client = connect(address.parse(broker.url_for(user, password)), name="test", timeout=timedelta(seconds=timeout))
    try:
        yield client
    finally:
        client.connection_pool.disconnect()


def _hosts(number: int) -> dict[str, acl.User]:
    users = (acl.host(f"host-{each}", [HASH]) for each in range(number))
    return {user.name: user for user in users}


def test_every_role_is_a_user_that_the_server_takes(any_broker: Broker, caller: "redis.Redis") -> None:
    users = [
        acl.host("h1", [HASH]),
        acl.principal("ann", [HASH]),
        acl.joiner("0" * 16, [HASH]),
        acl.control([HASH]),
        acl.flower([HASH]),
        acl.api([HASH]),
    ]
    broker_users.apply(caller, users)
    for user in users:
        with _as(any_broker, user.name) as client:
            client.client_setname("it")
            assert client.client.__name__ == "client"
    assert caller.acl_log() == [], "setting the library's name is granted where the server knows it"
    for user in users:
        with _as(any_broker, user.name, "wrong") as client, pytest.raises(redis.AuthenticationError):
            client.client_setname("it")


def test_rules_are_replaced_and_not_added_to(any_broker: Broker, caller: "redis.Redis") -> None:
    new = hashlib.sha256(b"new").hexdigest()
    wider = acl.User("h-h1", (*acl.host("h1", [HASH]).rules, "+keys", "(+get ~*)", "allchannels"))
    broker_users.apply(caller, [wider])
    broker_users.apply(caller, [acl.host("h1", [new])])
    with _as(any_broker, "h-h1") as client, pytest.raises(redis.AuthenticationError):
        client.time()
    with _as(any_broker, "h-h1", "new") as client:
        for command in (("KEYS", "*"), ("GET", "elsewhere"), ("PUBLISH", "elsewhere", "x")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


def test_new_rules_leave_sessions_alone(any_broker: Broker, caller: "redis.Redis") -> None:
    broker_users.apply(caller, [acl.principal("ann", [HASH])])
    with _as(any_broker, "p-ann") as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(names.WATCH)
        pubsub.get_message(ignore_subscribe_messages=False, timeout=30)
        broker_users.apply(caller, [acl.principal("ann", [HASH])])
        caller.publish(names.WATCH, "news")
        assert pubsub.get_message(timeout=30) == {
            "type": "message",
            "pattern": None,
            "channel": names.WATCH,
            "data": "news",
        }


def test_reconciling_leaves_exactly_the_wanted_and_nobody_else_is_touched(caller: "redis.Redis") -> None:
    others = {"control": acl.control([HASH]), "flower": acl.flower([HASH]), "api": acl.api([HASH])}
    broker_users.apply(caller, [*others.values(), acl.User("somebody", ("on", "nopass"))])
    kept = [acl.host("kept", [HASH]), acl.principal("kept", [HASH]), acl.joiner("a" * 16, [HASH])]
    gone = [acl.host("gone", [HASH]), acl.principal("gone", [HASH]), acl.joiner("b" * 16, [HASH])]
    broker_users.apply(caller, [*kept, *gone])
    wanted = {user.name: user for user in [*kept, acl.host("new", [HASH])]}
    changes = broker_users.reconcile(caller, wanted)
    assert changes == broker_users.Changes(added=("h-new",), removed=("h-gone", "join-bbbbbbbbbbbbbbbb", "p-gone"))
    assert set(caller.acl_users()) == {*wanted, *others, "somebody", "default", ADMIN}
    assert broker_users.reconcile(caller, wanted) == broker_users.Changes(added=(), removed=())


def test_whoever_is_let_in_while_the_database_is_read_stays(caller: "redis.Redis") -> None:
    broker_users.apply(caller, [acl.host("gone", [HASH]), acl.control([HASH])])
    known = broker_users.present(caller)
    assert known == {"h-gone"}
    broker_users.apply(caller, [acl.host("new", [HASH])])
    assert broker_users.reconcile(caller, {}, known=known).removed == ("h-gone",)
    assert broker_users.present(caller) == {"h-new"}


@pytest.mark.parametrize("name", ["control", "default", "admin"])
def test_reconciling_refuses_to_make_anybody_else(caller: "redis.Redis", name: str) -> None:
    broker_users.apply(caller, [acl.host("kept", [HASH])])
    with pytest.raises(errors.InvalidValue, match="begin with h-, p-, join-"):
        broker_users.reconcile(caller, {name: acl.User(name, ("on",))})
    assert "h-kept" in caller.acl_users()


def test_ten_thousand_users_are_made_kept_and_cleared_away(any_broker: Broker) -> None:
    with _as(any_broker, ADMIN, ADMIN_PASSWORD, timeout=200) as patient:
        _make_keep_and_clear_away(any_broker, patient)


def _make_keep_and_clear_away(any_broker: Broker, caller: "redis.Redis") -> None:
    wanted = _hosts(MANY)
    assert len(broker_users.reconcile(caller, wanted).added) == MANY
    before = broker_users.run_id(caller)
    assert broker_users.save(caller)
    any_broker.stop(kill=True)
    any_broker.start()
    assert broker_users.run_id(caller) != before
    assert len(caller.acl_users()) == MANY + 2
    with _as(any_broker, f"h-host-{MANY - 1}") as client:
        assert client.lpush(names.dead(f"host-{MANY - 1}"), "x") == 1
    few = dict(list(wanted.items())[:10])
    assert len(broker_users.reconcile(caller, few).removed) == MANY - 10
    assert len(caller.acl_users()) == 12


def test_what_was_not_saved_is_gone_after_a_restart_and_reconciled(any_broker: Broker, caller: "redis.Redis") -> None:
    wanted = _hosts(3)
    broker_users.apply(caller, wanted.values())
    any_broker.stop(kill=True)
    any_broker.start()
    assert broker_users.reconcile(caller, wanted).added == tuple(sorted(wanted))


def test_a_server_without_an_acl_file_saves_nothing(valkey_server: Broker, tmp_path: Path) -> None:
    server = Broker(valkey_server.binary, tmp_path, free_port(), keeps_users=False)
    server.start()
    try:
        with server.connect() as client:
            broker_users.apply(client, _hosts(1).values())
            assert not broker_users.save(client)
    finally:
        server.stop()


def test_an_acl_file_that_cannot_be_written_is_an_error(any_broker: Broker, caller: "redis.Redis") -> None:
    users = any_broker.directory / "users.acl"
    kept = users.read_text()
    users.unlink()
    users.mkdir()
    try:
        with pytest.raises(errors.BrokerUnavailable, match="ACL"):
            broker_users.save(caller)
    finally:
        users.rmdir()
        users.write_text(kept)


def test_default_channels_of_the_server_are_not_granted_to_anybody(valkey_server: Broker, tmp_path: Path) -> None:
    server = Broker(valkey_server.binary, tmp_path, free_port(), options=("--acl-pubsub-default", "allchannels"))
    server.start()
    try:
        with server.connect() as client:
            broker_users.apply(client, [acl.host("h1", [HASH]), acl.principal("ann", [HASH]), acl.flower([HASH])])
        for user, command in (
            ("h-h1", ("PUBLISH", names.WATCH, "x")),
            ("p-ann", ("SUBSCRIBE", "/h-h1.celeryev/task")),
            ("flower", ("PSUBSCRIBE", "*")),
        ):
            with _as(server, user) as client, pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
    finally:
        server.stop()


def test_errors_of_the_broker_are_fleets(any_broker: Broker, caller: "redis.Redis") -> None:
    broker_users.apply(caller, [acl.flower([HASH])])
    with _as(any_broker, "flower") as client:
        for refused in (
            lambda: broker_users.apply(client, [acl.host("h1", [HASH])]),
            lambda: broker_users.remove(client, ["h-h1"]),
            lambda: broker_users.reconcile(client, {}),
            lambda: broker_users.save(client),
        ):
            with pytest.raises(errors.BrokerRefused, match="does not let us"):
                refused()
    with pytest.raises(errors.BrokerUnavailable, match="unknown-word"):
        broker_users.apply(caller, [acl.User("h-h1", ("unknown-word",))])
    nobody = connect(address.parse(f"redis://127.0.0.1:{free_port()}/0"), name="test")
    with nobody, pytest.raises(errors.BrokerUnavailable, match="cannot be reached"):
        broker_users.run_id(nobody)


def test_who_is_cut_off_while_it_waits_gets_nothing_more(any_broker: Broker, caller: "redis.Redis") -> None:
    broker_users.apply(caller, [acl.host("h1", [HASH]), acl.host("h2", [HASH])])
    queue, inbox = names.queue("h1"), names.inbox("h1", 1)
    with (
        _as(any_broker, "h-h1") as waiting,
        _as(any_broker, "h-h1") as idle,
        _as(any_broker, "h-h2") as other,
        ThreadPoolExecutor(1) as pool,
    ):
        idle.time(), other.time()
        taken = pool.submit(waiting.blmove, queue, inbox, 15)
        until(lambda: _blocked(caller), "it waits in BLMOVE")
        assert broker_users.cut(caller, "h-h1")
        caller.lpush(queue, "message")
        with pytest.raises(redis.RedisError):
            taken.result(timeout=30)
        with pytest.raises(redis.RedisError):
            idle.time()
        assert other.time()
    assert caller.lrange(queue, 0, -1) == ["message"]
    assert not caller.exists(inbox)
    assert not broker_users.cut(caller, "h-h1"), "it is gone already"


def test_a_message_that_comes_in_the_same_breath_as_the_cut_does_not_reach_who_is_cut_off(
    any_broker: Broker, caller: "redis.Redis"
) -> None:
    """The server frees sessions a moment after DELUSER: what was pushed together with it must not slip through."""
    queue, inbox = names.queue("h1"), names.inbox("h1", 1)
    for _ in range(20):
        broker_users.apply(caller, [acl.host("h1", [HASH])])
        with _as(any_broker, "h-h1") as waiting, ThreadPoolExecutor(1) as pool:
            taken = pool.submit(waiting.blmove, queue, inbox, 15)
            until(lambda: _blocked(caller), "it waits in BLMOVE")
            with caller.pipeline(transaction=True) as pipe:
                pipe.execute_command("ACL DELUSER", "h-h1")
                pipe.lpush(queue, "message")
                pipe.execute()
            with pytest.raises(redis.RedisError):
                taken.result(timeout=30)
        kept = [*caller.lrange(queue, 0, -1), *caller.lrange(inbox, 0, -1)]
        assert kept == ["message"], "wherever it is, it is not lost"
        caller.flushall()


def _blocked(client: "redis.Redis") -> bool:
    info = client.info("clients")
    return bool(info["blocked_clients"])
