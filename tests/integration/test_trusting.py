"""Trusting: hosts hear of keys, and of whose credentials count, whoever was cut off before he had told them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import clock, credentials, db, keyring, members, names, policies, principals
from fleet.keyring import Keyring, Keyrings
from fleet.security.identity import Level, PrincipalIdentity
from fleet.security.trust import Trust
from tests import factories
from tests.services.broker import Broker
from workers.control.trusting import Trusting
from workers.host.control import ControlList
from workers.host.own import Own

HOST = "edge-1"


class Machine:
    """A host as far as it hears what the fleet says."""

    def __init__(self, client: "redis.Redis", path: Path, *, host: str = HOST) -> None:
        self._client = client
        self._path = path
        self.own = factories.own(path, host)

    def hear(self) -> list[str]:
        """Act upon all that lies in the control list, and return of which kinds that was, oldest first."""
        heard: list[str] = []

        def learn_trust(message: Any) -> None:
            heard.append(message.kind)
            self.own.learn_trust(message.statement)

        def learn_credential(message: Any) -> None:
            heard.append(message.kind)
            self.own.learn_credential(message.credential)

        time_of_broker = clock.BrokerClock()
        measured: Any = self._client.time()
        time_of_broker.measure(measured)
        refused: list[str] = []
        ControlList(
            self._client,
            {"trust.updated": learn_trust, "credential.issued": learn_credential},
            decide=lambda *_: None,
            own=self.own,
            epoch=1,
            clock=time_of_broker,
            on_superseded=lambda _: None,
            on_refused=lambda _item, _reason, detail: refused.append(detail),
        ).catch_up()
        assert refused == []
        return heard

    def starts_again(self) -> Own:
        return Own(self._path, credentials.load(self._path, host=self.own.host))


@dataclass(frozen=True)
class Plane:
    """The control plane's database, broker and keys; whoever changes something here is cut off before he tells it."""

    engine: Engine
    client: "redis.Redis"
    path: Path

    def trusting(self) -> Trusting:
        """Return a control worker's that has not looked yet."""
        keyrings = Keyrings(self.path, lambda: db.session(self.engine))
        lease = factories.HeldLease(self.client)
        return Trusting(engine=self.engine, client=self.client, keyrings=keyrings, lease=lease)

    def rotate(self) -> Keyring:
        with db.session(self.engine) as session:
            return keyring.rotate(session, self.path, by="alice")

    def retire(self) -> Keyring:
        with db.session(self.engine) as session:
            return keyring.retire(session, self.path, by="alice")

    def lower(self, principal: str) -> None:
        with db.session(self.engine) as session:
            ring = keyring.obtain(session, self.path)
            principals.set_level(session, principal, Level.INTERN, ring=ring, by="alice")


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the fleet's keys, with the one that hosts of these tests know."""
    path = tmp_path / "signing-keys.json"
    content = json.dumps({"keys": [factories.key("fleet").secret().get_secret_value()]})
    credentials.write_private(path, content, what="keys", remedy="")
    return path


@pytest.fixture
def engine(engine: Engine) -> Engine:
    with db.session(engine) as session:
        factories.found(session)
        factories.enroll(session, HOST).broker_hashes = ["ab" * 32]
    return engine


@pytest.fixture
def machine(client: "redis.Redis", tmp_path: Path) -> Machine:
    return Machine(client, tmp_path / "host.json")


@pytest.fixture
def plane(engine: Engine, client: "redis.Redis", path: Path) -> Plane:
    return Plane(engine, client, path)


@pytest.fixture
def trusting(plane: Plane) -> Trusting:
    """A control worker's, which has set the broker up."""
    made = plane.trusting()
    made.run()
    return made


@pytest.fixture
def bob(plane: Plane) -> PrincipalIdentity:
    """A principal as its first credential says who it is."""
    with db.session(plane.engine) as session:
        ring = keyring.obtain(session, plane.path)
        principals.create(session, ring=ring, name="bob", level=Level.AUTONOMOUS, by="alice", broker_url="redis://x")
        members.admit_principal(session, plane.client, "bob")
        return Trust.in_keys([ring.newest.public]).principal(principals.get(session, "bob").credential)


def test_a_host_hears_of_a_key_before_it_gets_a_credential_by_it(
    plane: Plane, trusting: Trusting, machine: Machine
) -> None:
    """The control worker may be faster than `fleet key rotate`, which has made the key and not told of it yet."""
    ring = plane.rotate()
    trusting.run()
    machine.hear()
    assert machine.own.identity.host == HOST
    assert ring.has_issued(credentials.load(machine._path, host=HOST).credential)
    plane.retire()
    with db.session(plane.engine) as session:
        members.announce_trust(session, plane.client, keyring.obtain(session, plane.path))
    machine.hear()
    assert machine.starts_again().trust.keys == (ring.newest.public,)


def test_whoever_announces_a_host_tells_it_the_keys_as_well(plane: Plane, machine: Machine) -> None:
    """A change of its labels may come between a new key and the word of it."""
    ring = plane.rotate()
    with db.session(plane.engine) as session:
        members.set_labels(session, HOST, to_set={"env": "prod"}, to_remove=(), by="alice")
        members.announce_host(session, plane.client, ring, HOST)
    assert machine.hear() == ["trust.updated", "credential.issued"]
    assert machine.own.identity.labels == {"env": "prod"}


def counts(machine: Machine, credential: PrincipalIdentity) -> bool:
    return not machine.own.trust.objection(credential, now=clock.now().timestamp())


def test_a_level_that_was_lowered_reaches_hosts_whoever_was_cut_off_in_between(
    plane: Plane, bob: PrincipalIdentity, trusting: Trusting, machine: Machine
) -> None:
    machine.hear()
    plane.lower("bob")
    assert counts(machine, bob)
    trusting.run()
    assert machine.hear() == ["trust.updated"]
    assert not counts(machine, bob)
    trusting.run()
    assert machine.hear() == [], "it is told once"


def test_the_next_holder_of_the_lease_tells_what_the_former_may_not_have_told(
    plane: Plane, client: "redis.Redis", bob: PrincipalIdentity, trusting: Trusting, machine: Machine
) -> None:
    plane.lower("bob")
    plane.trusting().run()
    machine.hear()
    assert not counts(machine, bob)
    client.set(names.CONTROL_LEASE, "another's")
    trusting.run()
    assert machine.hear() == []
    client.set(names.CONTROL_LEASE, "control-1")
    trusting.run()
    assert machine.hear() == ["trust.updated"], "whoever had it meanwhile may have been cut off"


def test_what_the_broker_has_lost_with_its_lists_is_told_again(
    plane: Plane, any_broker: Broker, bob: PrincipalIdentity, trusting: Trusting, machine: Machine
) -> None:
    with db.session(plane.engine) as session:
        policies.set_policy(session, "", by="alice")
        members.revoke_principal(session, plane.client, "bob", by="alice")
    trusting.run()
    assert plane.client.llen(names.control(HOST)) > 0
    plane.client.flushall()
    any_broker.stop()
    any_broker.start()
    plane.client.set(names.CONTROL_LEASE, "control-1")
    trusting.run()
    assert [word["kind"] for word in factories.heard(plane.client, HOST)] == ["trust.updated", "policy.updated"]
    plane.client.ltrim(names.control(HOST), 1, 1)
    machine.hear()
    assert not counts(machine, bob)


def test_a_retired_key_ends_on_hosts_whoever_was_cut_off_in_between(
    plane: Plane, trusting: Trusting, machine: Machine
) -> None:
    plane.rotate()
    trusting.run()
    machine.hear()
    assert len(machine.own.trust.keys) == 2
    last = plane.retire()
    trusting.run()
    machine.hear()
    assert machine.own.trust.keys == (last.newest.public,)


def test_what_was_renewed_is_announced_at_the_next_look_where_the_broker_went_away(
    plane: Plane,
    client: "redis.Redis",
    bob: PrincipalIdentity,
    trusting: Trusting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ring = plane.rotate()
    with monkeypatch.context() as away:
        away.setattr(members, "announce_trust", _break_off)
        with pytest.raises(redis.ConnectionError):
            trusting.run()
    client.delete(names.control(HOST))
    trusting.run()
    assert ring.has_issued(str(client.hget(names.PRINCIPALS, "bob")))
    assert [word["kind"] for word in factories.heard(client, HOST)] == [
        "trust.updated",
        "trust.updated",
        "credential.issued",
    ]


def _break_off(*_: object) -> Any:
    raise redis.ConnectionError
