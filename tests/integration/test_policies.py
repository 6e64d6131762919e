"""Policies: each version is kept and on record, the newest counts, and every host hears of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet import audit, db, errors, inventory, members, names, policies, policy
from fleet.keyring import Keyring
from fleet.models import PolicyVersion
from tests import factories
from tests.services.broker import Broker
from workers.control.trusting import Trusting

RING = factories.ring()
ONE = '[[commands]]\nname = "uptime"\nrisk = "reads"\nargv = ["/usr/bin/uptime"]\n'
OTHER = ONE.replace("uptime", "whoami")


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with db.session(engine) as opened:
        factories.found(opened)
        yield opened


def stated(client: "redis.Redis", *keys: str) -> policy.Stated:
    said: Any = client.get(names.POLICY)
    return policy.read(said, [factories.key(name).public for name in keys or ("fleet",)])


def told(client: "redis.Redis", host: str) -> list[int]:
    words = factories.heard(client, host, "policy.updated")
    return [policy.read(word["statement"], [RING.newest.public]).version for word in words]


def test_a_fleet_begins_without_a_policy(session: Session, client: "redis.Redis") -> None:
    factories.enroll(session, "edge-1")
    assert policies.current(session) is None
    assert policies.signed(session, RING) is None
    members.publish(session, client, RING)
    members.announce_policy(session, client, RING)
    assert not client.exists(names.POLICY)
    assert told(client, "edge-1") == []


def test_versions_are_counted_and_on_record_and_the_newest_counts(session: Session) -> None:
    for text in (ONE, OTHER, ONE):
        policies.set_policy(session, text, by="alice")
    assert [row.text for row in session.exec(select(PolicyVersion)).all()] == [ONE, OTHER, ONE]
    newest = policies.current(session)
    assert newest is not None
    assert (newest.number, newest.set_by) == (3, "alice")
    recorded = list(audit.events(session, event="policy.set", after_id=0))
    assert [event.data for event in recorded] == [
        {"version": number, "digest": policies.digest(text)} for number, text in enumerate((ONE, OTHER, ONE), start=1)
    ]
    assert {event.actor for event in recorded} == {"p:alice"}


def test_the_same_policy_once_more_is_no_new_version(session: Session) -> None:
    first = policies.set_policy(session, ONE, by="alice")
    assert policies.set_policy(session, ONE, by="bob").number == first.number == 1
    assert len(list(audit.events(session, event="policy.set", after_id=0))) == 1


def test_what_is_no_policy_is_not_set(session: Session) -> None:
    with pytest.raises(errors.SettingsInvalid, match="did you mean 'commands'"):
        policies.set_policy(session, "[[command]]\n", by="alice")
    assert policies.current(session) is None


def test_the_newest_is_published_and_told_to_every_member(session: Session, client: "redis.Redis") -> None:
    for host in ("edge-1", "edge-2", "gone"):
        factories.enroll(session, host)
    inventory.revoke_host(session, inventory.host(session, "gone"))
    policies.set_policy(session, ONE, by="alice")
    members.announce_policy(session, client, RING)
    policies.set_policy(session, OTHER, by="alice")
    members.announce_policy(session, client, RING)
    assert (stated(client).version, stated(client).text) == (2, OTHER)
    assert told(client, "edge-1") == told(client, "edge-2") == [1, 2]
    assert not client.exists(names.control("gone"))


def test_a_broker_that_starts_anew_is_given_the_policy(session: Session, client: "redis.Redis") -> None:
    policies.set_policy(session, ONE, by="alice")
    members.reconcile(session, client, RING)
    assert stated(client).text == ONE


def test_all_keys_sign_it_while_they_are_changed(session: Session, client: "redis.Redis") -> None:
    policies.set_policy(session, ONE, by="alice")
    members.announce_policy(session, client, Keyring([factories.key("fleet"), factories.key("next")]))
    assert stated(client, "fleet").text == stated(client, "next").text == ONE
    members.announce_policy(session, client, Keyring([factories.key("next")]))
    with pytest.raises(errors.NotTrusted):
        stated(client, "fleet")


def test_the_control_worker_tells_hosts_what_nobody_has_told_them(engine: Engine, client: "redis.Redis") -> None:
    with db.session(engine) as session:
        factories.found(session)
        factories.enroll(session, "edge-1").broker_hashes = ["ab" * 32]
        policies.set_policy(session, ONE, by="alice")  # and whoever did it was cut off
    lease = factories.HeldLease(client)
    trusting = Trusting(engine=engine, client=client, keyrings=factories.HeldKeyrings(), lease=lease)
    for _ in range(3):
        trusting.run()
    assert stated(client).text == ONE
    assert told(client, "edge-1") == [1]
    with db.session(engine) as session:
        policies.set_policy(session, OTHER, by="alice")
    for _ in range(3):
        trusting.run()
    assert told(client, "edge-1") == [1, 2]


def test_the_control_worker_tells_it_once_more_when_the_keys_have_changed(
    engine: Engine, client: "redis.Redis"
) -> None:
    with db.session(engine) as session:
        factories.found(session)
        factories.enroll(session, "edge-1").broker_hashes = ["ab" * 32]
        policies.set_policy(session, ONE, by="alice")
    keyrings = factories.HeldKeyrings()
    trusting = Trusting(engine=engine, client=client, keyrings=keyrings, lease=factories.HeldLease(client))
    trusting.run()
    keyrings._ring = Keyring([factories.key("fleet"), factories.key("next")])
    with db.session(engine) as session:
        factories.found(session, "next", number=2)
    trusting.run()
    assert told(client, "edge-1") == [1, 1]
    assert stated(client, "next").text == ONE
