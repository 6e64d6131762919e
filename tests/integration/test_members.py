"""Members: who has a user in the broker, what everybody reads there, and what hosts are told."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import clock, db, enrollment, errors, inventory, members, names, principals, tokens
from fleet.contracts.control import InventoryRequested
from fleet.keyring import Keyring
from fleet.models import EnrollmentToken
from fleet.security.identity import Level
from fleet.security.trust import Trust
from tests import factories
from tests.services.broker import Broker

RING = factories.ring()


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with db.session(engine) as opened:
        factories.found(opened)
        yield opened


def enroll(session: Session, host: str) -> None:
    factories.enroll(session, host).broker_hashes = ["ab" * 32]
    session.flush()


def introduce(session: Session, name: str) -> None:
    principals.create(session, ring=RING, name=name, level=Level.STUDENT, by="alice", broker_url="redis://127.0.0.1/0")


def token(session: Session, **wishes: Any) -> EnrollmentToken:
    text = enrollment.create_token(session, ring=RING, broker_url="redis://127.0.0.1/0", created_by="alice", **wishes)
    return session.get_one(EnrollmentToken, tokens.parse(text).id)


def users_in(client: "redis.Redis") -> set[str]:
    command: Any = client.execute_command
    return {user for user in command("ACL USERS") if user.startswith(("h-", "p-", "join-"))}


def test_members_principals_and_tokens_have_a_user_and_nobody_else(session: Session) -> None:
    for host in ("edge-1", "gone"):
        enroll(session, host)
    factories.enroll(session, "yet-without-a-password")
    inventory.revoke_host(session, inventory.host(session, "gone"))
    for name in ("bob", "mallory"):
        introduce(session, name)
    principals.revoke(session, "mallory", by="alice")
    good, revoked = token(session), token(session)
    enrollment.revoke_token(session, revoked.id, revoked_by="alice")
    found = members.users(session)
    assert set(found) == {"h-edge-1", "p-bob", f"join-{good.id}"}
    assert f"#{'ab' * 32}" in found["h-edge-1"].rules
    assert all(name == user.name for name, user in found.items())


def test_both_passwords_count_while_one_is_changed(session: Session) -> None:
    enroll(session, "edge-1")
    inventory.offer_key(session, "edge-1", key=factories.key("the next").public, broker_hash="cd" * 32)
    rules = members.users(session)["h-edge-1"].rules
    assert {f"#{'ab' * 32}", f"#{'cd' * 32}"} <= set(rules)


@pytest.mark.parametrize(
    ("uses_left", "created", "there"),
    [
        (1, timedelta(0), True),
        (1, timedelta(minutes=15, seconds=30), True),
        (1, timedelta(minutes=16, seconds=30), False),
        (0, timedelta(minutes=5), True),
    ],
    ids=["new", "just expired", "expired", "used up"],
)
def test_a_tokens_user_stays_until_its_time_is_over_and_its_answer_has_been_read(
    session: Session, uses_left: int, created: timedelta, *, there: bool
) -> None:
    record, now = token(session), clock.now()
    record.created_at -= created
    record.expires_at -= created
    record.uses_left = uses_left
    session.flush()
    assert (f"join-{record.id}" in members.users(session, now=now)) is there


def test_a_token_of_before_there_were_users_has_none(session: Session) -> None:
    token(session).broker_hash = None
    session.flush()
    assert members.users(session) == {}


def test_the_broker_gets_exactly_these_users_and_what_everybody_reads(session: Session, client: "redis.Redis") -> None:
    command: Any = client.execute_command
    for stray in ("h-stranger", "p-stranger", "join-" + "0" * 16, "admins-own"):
        command("ACL SETUSER", stray, "on", "nopass")
    client.hset(names.PRINCIPALS, "stranger", "x")
    client.hset(names.HOSTS, "stranger", "x")
    enroll(session, "edge-1")
    introduce(session, "bob")
    changes = members.reconcile(session, client, RING)
    assert set(changes.added) == {"h-edge-1", "p-bob"}
    assert set(changes.removed) == {"h-stranger", "p-stranger", "join-" + "0" * 16}
    assert users_in(client) == {"h-edge-1", "p-bob"}
    assert "admins-own" in command("ACL USERS")
    command("ACL DELUSER", "admins-own")
    assert client.hkeys(names.HOSTS) == ["edge-1"]
    trusted = Trust.in_keys([RING.newest.public])
    statement, credential = client.get(names.TRUST), client.hget(names.PRINCIPALS, "bob")
    assert trusted.learn(str(statement))
    assert trusted.principal(str(credential)).name == "bob"
    assert client.hkeys(names.PRINCIPALS) == ["bob"]
    again = members.reconcile(session, client, RING)
    assert (again.added, again.removed) == ((), ())


def test_only_members_are_told_and_by_the_key_that_they_have_for_certain(
    session: Session, client: "redis.Redis"
) -> None:
    for host in ("edge-1", "edge-2"):
        enroll(session, host)
    inventory.offer_key(session, "edge-1", key=factories.key("the next").public, broker_hash="cd" * 32)
    inventory.revoke_host(session, inventory.host(session, "edge-2"))
    members.tell(session, client, RING, dict.fromkeys(("edge-1", "edge-2", "stranger"), InventoryRequested()))
    assert [word["kind"] for word in factories.heard(client, "edge-1")] == ["inventory.requested"]
    assert client.keys("fleet:h:*:ctl") == [names.control("edge-1")]


def test_what_was_said_to_a_former_machine_is_dropped_and_nothing_else(session: Session, client: "redis.Redis") -> None:
    enroll(session, "edge-1")
    key, host = names.control("edge-1"), inventory.host(session, "edge-1")
    members.tell(session, client, RING, {"edge-1": InventoryRequested()})
    [kept] = client.lrange(key, 0, -1)
    for former in (RING.word(factories.key("a former machine").public, InventoryRequested()), b"\xff\xfe", "[]"):
        client.lpush(key, former, former)
    members.drop_former_words(session, client, host)
    assert client.lrange(key, 0, -1) == [kept]
    client.lpush(key, *["x"] * 5000)  # any principal may
    members.drop_former_words(session, client, host)
    assert not client.exists(key)


def test_a_revoked_hosts_belongings_are_gone_from_the_broker(session: Session, client: "redis.Redis") -> None:
    for host in ("edge-1", "edge-10"):
        enroll(session, host)
    members.reconcile(session, client, RING)
    for host in ("edge-1", "edge-10"):
        client.lpush(names.queue(host), "x")
        client.lpush(names.inbox(host, 3), "x")
        client.set(names.presence(host), "x")
        client.set(names.epoch(host), "3")
    members.revoke_host(session, client, RING, "edge-1", by="alice")
    assert users_in(client) == {"h-edge-10"}
    assert client.hkeys(names.HOSTS) == ["edge-10"]
    left = [*client.keys("*edge-1"), *client.keys("*edge-1:*")]
    assert left == [names.epoch("edge-1")], "a machine that gets the name goes on counting"
    assert client.llen(names.queue("edge-10")) == client.llen(names.inbox("edge-10", 3)) == 1
    with pytest.raises(errors.NotFound):
        members.revoke_host(session, client, RING, "edge-9", by="alice")


def test_hosts_of_an_older_key_get_new_credentials(session: Session, client: "redis.Redis") -> None:
    enroll(session, "edge-1")
    both = Keyring([factories.key("fleet"), factories.key("the next")])
    assert not members.renew_hosts(session, RING)
    factories.found(session, "the next", number=2)
    assert members.renew_hosts(session, both)
    assert members.unannounced(session) == ["edge-1"]
    members.announce_host(session, client, both, "edge-1")
    assert members.unannounced(session) == []
    [trust, word] = factories.heard(client, "edge-1")
    assert (trust["kind"], word["kind"]) == ("trust.updated", "credential.issued")
    assert Trust.in_keys([factories.key("the next").public]).host(word["credential"]).host == "edge-1"
    assert not members.renew_hosts(session, both)


def test_users_of_tokens_that_are_over_are_taken_out_and_no_others(session: Session, client: "redis.Redis") -> None:
    good, over = token(session), token(session)
    enroll(session, "edge-1")
    members.reconcile(session, client, RING)
    over.revoked_at = clock.now()
    session.flush()
    assert members.prune_joiners(session, client) == 1
    assert members.prune_joiners(session, client) == 0
    assert users_in(client) == {f"join-{good.id}", "h-edge-1"}
