"""A fleet for tests on a broker whose `default` user is off: each part has a user of its own."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine

from fleet import credentials, db, enrollment, joining, tokens
from fleet import settings as fleet_settings
from fleet.broker.connection import connect
from fleet.security import acl, broker_users
from fleet.settings import Settings
from tests.services.broker import Broker
from tests.services.system import Part, System

PRINCIPAL = "alice"


def password(user: str) -> str:
    return f"password-of-{user}"


def hashes(user: str) -> list[str]:
    """Return what the broker keeps of that password."""
    return [hashlib.sha256(password(user).encode()).hexdigest()]


def admit(broker: Broker, *users: acl.User) -> None:
    """Make users, and keep them over a restart."""
    with broker.connect() as admin:
        broker_users.apply(admin, users)
        broker_users.save(admin)


def url(broker: Broker, user: str) -> str:
    return broker.url_for(user, password(user))


def client(broker: Broker, user: str) -> "redis.Redis":
    """Return a raw client with the credentials of a user."""
    return connect(url(broker, user), name=f"as-{user}", connections=4)


def lock(broker: Broker) -> None:
    """Switch the `default` user off; there are a control plane, a principal and Flower."""
    roles = (acl.control(hashes("control")), acl.flower(hashes("flower")))
    admit(broker, *roles, acl.principal(PRINCIPAL, hashes(f"p-{PRINCIPAL}")), acl.default())


def denials(broker: Broker) -> list[dict[str, Any]]:
    """Return what the broker has denied to anybody, the newest first."""
    with broker.connect() as admin:
        log: Any = admin.acl_log()
    return [{key: entry[key] for key in ("username", "reason", "context", "object", "count")} for entry in log]


class Locked(System):
    """A fleet whose parts have users of their own."""

    def environment(self, **more: str) -> dict[str, str]:
        """The CLI acts as the control plane, unless it is told otherwise."""
        return super().environment(**{"FLEET_BROKER_URL": url(self.broker, "control"), **more})

    def run(self, *words: str, **more: Any) -> Part:
        if words[0] != "control":  # a worker has its credential, and must not need anything else
            more.setdefault("FLEET_BROKER_URL", url(self.broker, "flower" if words[0] == "flower" else "nobody"))
        return super().run(*words, **more)

    @property
    def settings(self) -> Settings:
        """The principal's."""
        return fleet_settings.load(
            state_dir=self.directory,
            broker_url=url(self.broker, f"p-{PRINCIPAL}"),
            database_url=self.database_url,
            principal=PRINCIPAL,
        )

    def enroll(self, host: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Let a host in as a user of the token, and give it a user of its own."""
        with db.session(self.engine) as session:
            text = enrollment.create_token(
                session, broker_url=self.broker.url, created_by=PRINCIPAL, host_id=host, labels=labels
            )
        joiner = f"join-{tokens.parse(text).id}"
        admit(self.broker, acl.joiner(tokens.parse(text).id, hashes(joiner)), acl.host(host, hashes(f"h-{host}")))
        joined = joining.join(text, host=host, version="test", broker_url=url(self.broker, joiner))
        with self.broker.connect() as admin:
            assert broker_users.cut(admin, joiner)
        own = SecretStr(url(self.broker, f"h-{host}"))
        credentials.save(self.settings.credential_path(host), joined.model_copy(update={"broker_url": own}))


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
