"""A fleet for tests on a broker whose `default` user is off: each part has a user of its own.

The control plane and Flower are given theirs, as by whoever sets a broker up; the control plane makes all others.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import address as addresses
from fleet import configuration, db, keyring
from fleet.address import Address
from fleet.broker import login
from fleet.broker.connection import connect
from fleet.keyring import Keyring
from fleet.security import acl, broker_users
from fleet.settings import Settings
from tests.services.broker import Broker
from tests.services.system import Part, System

PRINCIPAL = "alice"


def password(user: str) -> str:
    return f"password-of-{user}"


def hashes(user: str) -> list[str]:
    """Return what the broker keeps of that password."""
    return [login.hashed(password(user))]


def admit(broker: Broker, *users: acl.User) -> None:
    """Make users, and keep them over a restart."""
    with broker.connect() as admin:
        broker_users.apply(admin, users)
        broker_users.save(admin)


def url(broker: Broker, user: str) -> str:
    return broker.url_for(user, password(user))


def address(broker: Broker, user: str) -> Address:
    return addresses.parse(url(broker, user))


def client(broker: Broker, user: str) -> "redis.Redis":
    """Return a raw client with the credentials of a user."""
    return connect(address(broker, user), name=f"as-{user}", connections=4)


def lock(broker: Broker) -> None:
    """Switch the `default` user off; there are a control plane and Flower."""
    admit(broker, acl.control(hashes("control")), acl.flower(hashes("flower")), acl.default())


def denials(broker: Broker) -> list[dict[str, Any]]:
    """Return what the broker has denied to anybody, the newest first."""
    with broker.connect() as admin:
        log: Any = admin.acl_log()
    return [{key: entry[key] for key in ("username", "reason", "context", "object", "count")} for entry in log]


class Locked(System):
    """A fleet whose parts have users of their own."""

    def environment(self, **more: str) -> dict[str, str]:
        """The CLI acts as the control plane, and pushes by the principal's file, unless it is told otherwise."""
        return super().environment(**{"FLEET_BROKER_URL": url(self.broker, "control"), **more})

    def run(self, *words: str, **more: Any) -> Part:
        if words[0] != "control":  # a worker has its credential, and must not need anything else
            more.setdefault("FLEET_BROKER_URL", url(self.broker, "flower" if words[0] == "flower" else "nobody"))
        return super().run(*words, **more)

    @property
    def settings(self) -> Settings:
        """The principal's, who knows the broker from its file alone."""
        return configuration.load(state_dir=self.directory, database_url=self.database_url, principal=PRINCIPAL)

    @contextlib.contextmanager
    def control_plane(self) -> Iterator[tuple[Session, "redis.Redis", Keyring]]:
        """Give what the control plane works with, and no more than its own user at the broker."""
        with client(self.broker, "control") as control, db.session(self.engine) as session:
            yield session, control, keyring.obtain(session, self.settings.signing_keys_path)


@pytest.fixture
def locked(tmp_path: Path, any_broker: Broker, engine: Engine, migrated_url: str) -> Iterator[Locked]:
    """A fleet without any process yet, on a locked broker of each kind; it is denied nothing until its end."""
    lock(any_broker)
    started = Locked(tmp_path, any_broker, migrated_url, engine)
    yield started
    for part in started.parts:  # pytest shows it where the test failed
        print(f"--- {part.log.name}\n{part.log.read_text()}")
    started.end()
    assert denials(any_broker) == []
