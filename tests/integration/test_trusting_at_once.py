"""What two processes change of hosts and principals at once, on PostgreSQL: neither undoes what the other has done.

On SQLite one writes at a time.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from fleet import clock, db, inventory, members, names, principals
from fleet.keyring import Keyring
from fleet.models import Membership
from fleet.security.identity import HostIdentity, Level, PrincipalIdentity
from fleet.security.trust import Trust
from tests import factories
from tests.services.broker import Broker
from tests.services.waiting import until

RING = factories.ring()
NEXT = Keyring([factories.key("fleet"), factories.key("next")])
HOST = "edge-1"
#: What is paused goes on by itself after so long, where a test fails.
_LONGEST = 30.0

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.parametrize("backend", ["postgresql"], indirect=True),
    pytest.mark.usefixtures("postgres"),
]


@pytest.fixture
def engine(engine: Engine) -> Engine:
    with db.session(engine) as session:
        factories.found(session)
        factories.enroll(session, HOST, labels={"env": "prod"}).broker_hashes = ["ab" * 32]
        principals.create(session, ring=RING, name="bob", level=Level.AUTONOMOUS, by="alice", broker_url="redis://x")
    return engine


@pytest.fixture
def client(broker: Broker) -> Iterator["redis.Redis"]:
    with broker.connect() as opened:
        yield opened


class Pause:
    """Stops whoever comes by, once, until it is told to let him go on."""

    def __init__(self) -> None:
        self.reached, self.over = Event(), Event()

    def stop(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.over.wait(_LONGEST)


class SlowRing(Keyring):
    """A ring whose owner is slow to issue a credential."""

    def __init__(self, ring: Keyring, pause: Pause) -> None:
        super().__init__(ring.keys)
        self._pause = pause

    def issue(self, who: HostIdentity | PrincipalIdentity) -> str:
        issued = super().issue(who)
        self._pause.stop()
        return issued


@pytest.fixture
def slow_to_admit(monkeypatch: pytest.MonkeyPatch) -> Pause:
    """Whoever brings a host to the broker stops right before."""
    pause, admit_host = Pause(), members.admit_host

    def admit(*given: Any, **more: Any) -> None:
        pause.stop()
        admit_host(*given, **more)

    monkeypatch.setattr(members, "admit_host", admit)
    return pause


def at_once(engine: Engine, pause: Pause, first: Callable[[], object], second: Callable[[], object]) -> None:
    """Have the second begin where the first pauses, and the first go on once the second is done or has to wait."""
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(first)]
        try:
            until(lambda: pause.reached.is_set() or done[0].done(), "the first is under way")
            done.append(pool.submit(second))
            until(lambda: done[1].done() or _waits(engine, done[0]), "the second is done, or waits")
        finally:
            pause.over.set()
        for each in done:
            each.result()


def _waits(engine: Engine, first: "Future[object]") -> bool:
    """Say whether anybody waits for a lock in this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return bool(connection.execute(text(query)).scalar()) or first.done()


def relabel(engine: Engine, **labels: str) -> None:
    with db.session(engine) as session:
        members.set_labels(session, HOST, to_set=labels, to_remove=["env"], by="bob")


def announce(engine: Engine, client: "redis.Redis") -> None:
    with db.session(engine) as session:
        members.announce_host(session, client, RING, HOST)


def test_a_label_that_is_changed_while_a_credential_is_issued_is_in_the_next_one(
    engine: Engine, client: "redis.Redis", slow_to_admit: Pause
) -> None:
    with db.session(engine) as session:
        members.set_labels(session, HOST, to_set={"site": "basel"}, to_remove=(), by="alice")
    at_once(engine, slow_to_admit, lambda: announce(engine, client), lambda: relabel(engine, site="bern"))
    with db.session(engine, write=False) as session:
        assert inventory.host(session, HOST).labels == {"site": "bern"}
        assert members.unannounced(session) == [HOST]
    announce(engine, client)
    assert factories.labels(client, HOST) == {"site": "bern"}


def test_labels_that_two_change_at_once_are_both_changed(engine: Engine) -> None:
    pause = Pause()

    def first() -> None:
        with db.session(engine) as session:
            members.set_labels(session, HOST, to_set={"site": "basel"}, to_remove=(), by="alice")
            pause.stop()

    at_once(engine, pause, first, lambda: relabel(engine, tier="edge"))
    with db.session(engine, write=False) as session:
        assert inventory.host(session, HOST).labels == {"site": "basel", "tier": "edge"}


def test_a_host_that_is_put_out_while_it_is_announced_has_no_user_left(
    engine: Engine, client: "redis.Redis", slow_to_admit: Pause
) -> None:
    with db.session(engine) as session:
        members.set_labels(session, HOST, to_set={"site": "basel"}, to_remove=(), by="alice")

    def put_out() -> None:
        with db.session(engine) as session:
            members.revoke_host(session, client, RING, HOST, by="alice")

    at_once(engine, slow_to_admit, lambda: announce(engine, client), put_out)
    command: Any = client.execute_command
    assert f"h-{HOST}" not in command("ACL USERS")
    assert not client.hexists(names.HOSTS, HOST)
    with db.session(engine, write=False) as session:
        assert inventory.host(session, HOST).membership == Membership.REVOKED


def test_a_level_that_is_lowered_while_credentials_are_renewed_is_in_the_credential(engine: Engine) -> None:
    pause = Pause()
    with db.session(engine) as session:
        factories.found(session, "next", number=2)

    def renew() -> None:
        with db.session(engine) as session:
            principals.renew(session, SlowRing(NEXT, pause), now=clock.now())

    def lower() -> None:
        with db.session(engine) as session:
            principals.set_level(session, "bob", Level.INTERN, ring=NEXT, by="alice")

    at_once(engine, pause, renew, lower)
    with db.session(engine, write=False) as session:
        row = principals.get(session, "bob")
    credential = Trust.in_keys([NEXT.newest.public]).principal(row.credential)
    assert (row.level, row.serial) == (Level.INTERN, 2)
    assert (credential.level, credential.serial) == (Level.INTERN, 2)


def test_a_level_stays_lowered_where_what_a_principal_approves_is_changed_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, get = Pause(), principals.get

    def slow(*given: Any) -> Any:
        found = get(*given)
        pause.stop()
        return found

    monkeypatch.setattr(principals, "get", slow)

    def change() -> None:
        with db.session(engine) as session:
            principals.set_approves(session, "bob", (), ring=RING, by="alice")

    def lower() -> None:
        with db.session(engine) as session:
            principals.set_level(session, "bob", Level.INTERN, ring=RING, by="alice")

    at_once(engine, pause, change, lower)
    with db.session(engine, write=False) as session:
        assert get(session, "bob").level == Level.INTERN
