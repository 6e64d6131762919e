"""A fleet under siege: control plane and workers as they run, on a broker whose `default` user is off.

One siege serves a whole module. Each attack comes by the credentials that its attacker would have, and after each the
fleet has to do good work at once (`works`).
"""

import ast
import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import address, audit, credentials, db, names
from fleet.broker.connection import connect
from fleet.client import Fleet
from fleet.contracts import registry
from fleet.contracts.credentials import HostCredential, PrincipalCredential
from fleet.contracts.envelope import HEADER
from fleet.models import AuditEvent
from fleet.security import acl, signing
from fleet.security.identity import Level
from fleet.security.keys import KeyPair
from tests.services import locked, offered
from tests.services.broker import Broker, serve
from tests.services.system import Part, System
from tests.services.waiting import until

#: What good work may take right after an attack, and what putting somebody out may take. Two seconds are promised, on a
#: machine with nothing else to do; who is not put out at once goes on for the minute that its task or its call lasts.
AT_ONCE = 25.0
EFFECT = "offered.effect"


class Siege(System):
    """A fleet, what its attackers can take from it, and how it is seen to work."""

    def __post_init__(self) -> None:
        locked.admit(
            self.broker,
            acl.control(locked.hashes("control")),
            acl.flower(locked.hashes("flower")),
            acl.default(),
        )
        self.packages = [offered.PATH]
        super().__post_init__()

    def environment(self, **more: str) -> dict[str, str]:
        """Whoever is started has the control plane's settings, unless it is told otherwise."""
        return super().environment(**{"FLEET_BROKER_URL": locked.url(self.broker, "control"), **more})

    def run(self, *words: str, **more: Any) -> Part:
        if words[0] != "control":  # a worker has its credential, and must not need anything else
            more.setdefault("FLEET_BROKER_URL", locked.url(self.broker, "flower" if words[0] == "flower" else "nobody"))
        return super().run(*words, **more)

    def fleet_of(self, principal: str) -> Fleet:
        """Return the door of another principal."""
        found = self.settings.model_copy(update={"principal": principal})
        return Fleet(found)

    def read_files_anew(self) -> None:
        """Have alice push by the file that she has now."""
        self.fleet.close()
        self._fleet = None

    def held_by_host(self, host: str) -> HostCredential:
        """Return what somebody has who stole a host's credential."""
        return credentials.load(self.settings.credential_path(host), host=host)

    def held_by(self, principal: str) -> PrincipalCredential:
        """Return what somebody has who stole a principal's file."""
        return credentials.load_principal(self.settings.principal_path(principal), name=principal)

    def thief(self, held: HostCredential | PrincipalCredential) -> "redis.Redis":
        """Return a raw client with a stolen credential."""
        return connect(address.parse(held.broker_url.get_secret_value()), name="thief", connections=4)

    def worker(self, host: str) -> Part:
        """Return the worker of a host that runs now."""
        words: list[list[str]] = [list(part.process.args) for part in self.parts]  # type: ignore[arg-type]
        found = [
            part
            for part, said in zip(self.parts, words, strict=True)
            if said[-3:] == ["worker", "--host-id", host] and part.process.poll() is None
        ]
        return found[-1]

    def known(self, name: str, level: Level = Level.AUTONOMOUS, **wishes: Any) -> PrincipalCredential:
        """Return the file of a principal, who is made where there is none of that name yet."""
        if not self.settings.principal_path(name).exists():
            self.introduce(name, level, **wishes)
        return self.held_by(name)

    @property
    def effects(self) -> Path:
        """Where the task `offered.effect` writes down that it ran."""
        return self.directory / "effects"

    def ran(self, run_id: str) -> int:
        """Return how often a run has had its effect."""
        lines = self.effects.read_text().splitlines() if self.effects.exists() else []
        return sum(line.split()[0] == run_id for line in lines)

    def mark(self) -> int:
        """Return the number of the newest audit event, when all is on record that was said before."""
        latest: Any = self.redis.lindex(names.reports("h1"), 0)
        if latest is not None:
            until(lambda: self.redis.lpos(names.reports("h1"), latest) is None, "what h1 has said is taken in")
        with db.session(self.engine, write=False) as session:
            newest = audit.events(session, limit=1)
            return (newest[0].id or 0) if newest else 0

    def heard(self, event: str, *, after: int, timeout: float = 30.0, **data: Any) -> AuditEvent:
        """Return the audit event with these data that comes after a mark, once it is there."""

        def look() -> AuditEvent | None:
            found = [
                each
                for each in self.events(event)
                if (each.id or 0) > after and all(each.data.get(key) == value for key, value in data.items())
            ]
            return found[0] if found else None

        return until(look, f"{event} with {data}", timeout=timeout)

    def works(self, host: str = "h1") -> str:
        """Have a good task run, at once; return its run."""
        pushed = self.fleet.push(EFFECT, on=host, arguments={"log": str(self.effects)}).results[0]
        assert pushed.get(timeout=AT_ONCE) == {"said": "done"}
        return str(pushed.id)

    def template(self, host: str = "h1") -> dict[str, Any]:
        """Return a real message, as it went over the wire, of a run that is over."""
        with self.wire() as wire:
            run_id = self.works(host)
            found: dict[str, Any] = json.loads(wire.sent_to(names.queue(host))[0])
        assert found["headers"]["id"] == run_id
        return found

    @contextmanager
    def wire(self) -> Iterator["Wire"]:
        """Hear what everybody says to the broker, as somebody who owns it."""
        with self.broker.connect() as client, client.monitor() as monitor:
            yield Wire(monitor)

    def fresh(self, template: dict[str, Any]) -> dict[str, Any]:
        """Return the message for a run that nobody has heard of; it is not signed."""
        found: dict[str, Any] = json.loads(json.dumps(template))
        run_id = names.new_run_id(found["headers"][HEADER]["host"])
        found["headers"] |= {"id": run_id, "root_id": run_id}
        found["headers"].pop(signing.HEADER)
        found["properties"] |= {"correlation_id": run_id, "delivery_tag": str(uuid.uuid4())}
        seconds, _ = self.time()
        found["headers"][HEADER]["submitted_at"] = float(seconds)
        return found

    def time(self) -> tuple[int, int]:
        measured: Any = self.redis.time()
        return measured[0], measured[1]

    def signed(self, message: dict[str, Any], by: HostCredential | PrincipalCredential) -> dict[str, Any]:
        """Sign a message by a credential, in place."""
        signing.sign_message(message, KeyPair.read(by.private_key.get_secret_value()), by.credential)
        return message

    def send(self, message: dict[str, Any] | bytes, *, host: str = "h1") -> None:
        """Put something into a host's queue, as somebody may who has a principal's login."""
        item: Any = message if isinstance(message, bytes) else json.dumps(message)
        with self.thief(self.held_by("alice")) as client:
            client.lpush(names.queue(host), item)

    def refuses(self, message: dict[str, Any] | bytes, reason: str, *, host: str = "h1", **claimed: Any) -> AuditEvent:
        """Send something that is refused for that reason, says the audit, and has no effect; good work goes on."""
        before = self.mark()
        self.send(message, host=host)
        self.works(host)
        found = self.heard("message.refused", after=before, reason=reason)
        if isinstance(message, dict) and isinstance(message.get("headers"), dict):
            assert not self.ran(str(message["headers"].get("id")))
        return found

    def rejects(self, message: dict[str, Any], reason: str, *, host: str = "h1") -> AuditEvent:
        """Send what is signed and all the same refused: its run is rejected for that reason, says the audit."""
        before, run_id = self.mark(), message["headers"]["id"]
        self.send(message, host=host)
        self.works(host)
        found = self.heard("run.rejected", after=before, reason=reason)
        assert found.run_id == run_id
        assert not self.ran(run_id)
        return found


class Wire:
    """What the broker was told since this began."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self.said: list[list[bytes]] = []

    def sent_to(self, key: str, *, command: bytes = b"LPUSH") -> list[bytes]:
        """Return what was put into a list, once there is something."""

        def look() -> list[bytes]:
            while self._monitor.connection.can_read(timeout=0):
                self.said.append(_words(self._monitor.connection.read_response(disable_decoding=True)))
            return [words[2] for words in self.said if words[:2] == [command, key.encode()]]

        return until(look, f"something for {key}")


def _words(line: bytes) -> list[bytes]:
    """Read one line of MONITOR: words in quotes, written as Python writes bytes."""
    return [ast.literal_eval(f"b{word.decode()}") for word in re.findall(rb'"(?:[^"\\]|\\.)*"', line)]


@pytest.fixture(scope="module")
def siege_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Valkey of this module's own."""
    yield from serve("valkey", tmp_path_factory.mktemp("siege-broker"))


@pytest.fixture(scope="module")
def besieged(siege_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Siege]]:
    """Make fleets without any process yet, on this module's broker; one at a time."""
    made: list[Siege] = []
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(offered.PATH))
    registry.known.cache_clear()

    def make() -> Siege:
        directory = tmp_path_factory.mktemp("siege")
        url = f"sqlite:///{directory / 'fleet.db'}"
        engine = db.open_engine(url)
        db.migrate(engine)
        made.append(Siege(directory, siege_broker, url, engine))
        return made[-1]

    yield make
    for siege in made:
        siege.end()
        siege.engine.dispose()
    patch.undo()
    registry.known.cache_clear()


@pytest.fixture(scope="module")
def siege(besieged: Callable[..., Siege]) -> Siege:
    """Control worker, and h1 with its worker; h2 is enrolled, and away."""
    made = besieged()
    made.start_control()
    for host in ("h1", "h2"):
        made.enroll(host, labels={"env": "test"})
    made.start_worker("h1")
    return made
