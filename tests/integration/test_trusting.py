"""Trusting: hosts hear of keys, and of whose credentials count, whoever was cut off before he had told them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import clock, credentials, db, keyring, members
from fleet.keyring import Keyring, Keyrings
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
def trusting(engine: Engine, client: "redis.Redis", path: Path) -> Trusting:
    """A control worker's, which has set the broker up."""
    keyrings = Keyrings(path, lambda: db.session(engine))
    made = Trusting(engine=engine, client=client, keyrings=keyrings, lease=factories.HeldLease(client))
    made.run()
    return made


def rotate(engine: Engine, path: Path) -> Keyring:
    with db.session(engine) as session:
        return keyring.rotate(session, path, by="alice")


def retire(engine: Engine, path: Path) -> Keyring:
    with db.session(engine) as session:
        return keyring.retire(session, path, by="alice")


def test_a_host_hears_of_a_key_before_it_gets_a_credential_by_it(
    engine: Engine, client: "redis.Redis", path: Path, trusting: Trusting, machine: Machine
) -> None:
    """The control worker may be faster than `fleet key rotate`, which has made the key and not told of it yet."""
    ring = rotate(engine, path)
    trusting.run()
    machine.hear()
    assert machine.own.identity.host == HOST
    assert ring.has_issued(credentials.load(machine._path, host=HOST).credential)
    retire(engine, path)
    with db.session(engine) as session:
        members.announce_trust(session, client, keyring.obtain(session, path))
    machine.hear()
    assert machine.starts_again().trust.keys == (ring.newest.public,)


def test_whoever_announces_a_host_tells_it_the_keys_as_well(
    engine: Engine, client: "redis.Redis", path: Path, machine: Machine
) -> None:
    """A change of its labels may come between a new key and the word of it."""
    ring = rotate(engine, path)
    with db.session(engine) as session:
        members.set_labels(session, HOST, to_set={"env": "prod"}, to_remove=(), by="alice")
        members.announce_host(session, client, ring, HOST)
    assert machine.hear() == ["trust.updated", "credential.issued"]
    assert machine.own.identity.labels == {"env": "prod"}
