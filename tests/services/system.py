"""A fleet for tests: control worker and host workers as processes of their own, on a real broker and database."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import audit, configuration, credentials, db, enrollment, joining, keyring, members, names, principals
from fleet.client import Fleet
from fleet.contracts.presence import Heartbeat
from fleet.keyring import Keyring
from fleet.models import AuditEvent, Run
from fleet.security import signing
from fleet.security.identity import Level
from fleet.security.keys import KeyPair
from fleet.settings import Settings
from tests.services import forks
from tests.services.broker import Broker, serve
from tests.services.freezing import frozen
from tests.services.waiting import until
from workers.host.spool import Spool

ROOT = Path(__file__).parents[2]
#: An Engine that is not there: workers of tests without Docker must not find the machine's own.
NO_DOCKER = "unix:///nonexistent/docker.sock"
#: Starts take the most CPU of all that is waited for: seconds of it, where a dozen want the same processor.
STARTED_WITHIN = 90.0
#: For a control worker that gets no processor for a while.
_PATIENCE = timedelta(seconds=60)


@dataclass
class Part:
    """One process of the fleet."""

    process: forks.Process
    log: Path

    def stop(self, *, number: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal and wait for the end; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)


@dataclass
class System:
    """The processes and doors of one fleet."""

    directory: Path
    broker: Broker
    database_url: str
    engine: Engine
    parts: list[Part] = field(default_factory=list)
    #: folders of packages that are installed on every host, beside Fleet
    packages: list[Path] = field(default_factory=list)
    _fleet: Fleet | None = None
    _redis: "redis.Redis | None" = None
    _genuine: str | None = None

    def __post_init__(self) -> None:
        self.introduce("alice")

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "DOCKER_"))}
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join([*(str(path) for path in self.packages), str(ROOT)]),
            "FLEET_STATE_DIR": str(self.directory),
            "FLEET_BROKER_URL": self.broker.url,
            **({"FLEET_BROKER_CA": str(self.broker.ca)} if self.broker.ca else {}),
            "FLEET_DATABASE_URL": self.database_url,
            "FLEET_DOCKER_URL": NO_DOCKER,
            "FLEET_PRINCIPAL": "alice",
            "FLEET_HEALTH_ADDRESS": "127.0.0.1:0",  # tests that run beside this one have the usual ports
            **more,
        }

    def run(self, *words: str, prefix: Sequence[str] = (), **environment: str) -> Part:
        """Start `fleet …` as a process, by another program if `prefix` names one; its output goes to a file that a
        failing test shows."""
        log = self.directory / f"{words[0]}-{len(self.parts)}.log"
        with log.open("wb") as output:
            variables = self.environment(**environment)
            if prefix:
                process: forks.Process = subprocess.Popen(
                    [*prefix, sys.executable, "-m", "fleet", *words],
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            else:
                process = forks.start(words, env=variables, output=output, errors=output)
        part = Part(process, log)
        self.parts.append(part)
        return part

    def command(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `fleet …` to its end, as somebody who has the control plane's settings, or others."""
        return forks.run(words, env=self.environment(**environment))

    def start_control(self) -> Part:
        part = self.run("control")
        with self.broker.connect() as client:
            until(
                lambda: client.exists(names.CONTROL_LEASE), "a control worker holds the lease", timeout=STARTED_WITHIN
            )
        return part

    def enroll(self, host: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Let a host in by a token, over the broker."""
        token = self.token(host_id=host, labels=labels)
        credential = joining.join(token, host=host, version="test", patience=_PATIENCE)
        credentials.save(self.settings.credential_path(host), credential)

    @contextlib.contextmanager
    def control_plane(self) -> Iterator[tuple[Session, "redis.Redis", Keyring]]:
        """Give what the control plane works with, for one transaction."""
        with self.broker.connect() as client, db.session(self.engine) as session:
            yield session, client, keyring.obtain(session, self.settings.signing_keys_path)

    def token(self, **wishes: Any) -> str:
        """Make an enrollment token that the broker knows."""
        with self.control_plane() as (session, client, ring):
            token = enrollment.create_token(
                session,
                ring=ring,
                broker_url=self.broker.url,
                broker_ca=self.broker.address.ca,
                created_by="alice",
                **wishes,
            )
            members.admit_token(session, client, ring, token)
            return token

    def introduce(self, name: str, level: Level = Level.AUTONOMOUS, **wishes: Any) -> Path:
        """Make a principal, and return its file, which lies where everybody of this system looks for it."""
        with self.control_plane() as (session, client, ring):
            made = principals.create(
                session,
                ring=ring,
                name=name,
                level=level,
                by="alice",
                broker_url=self.broker.url,
                broker_ca=self.broker.address.ca,
                **wishes,
            )
            members.admit_principal(session, client, name)
            members.publish(session, client, ring)
        path = self.settings.principal_path(name)
        credentials.save_principal(path, made)
        return path

    def start_worker(self, host: str, **environment: str) -> Part:
        """Start the worker of an enrolled host and wait for its first heartbeat."""
        known = self.heartbeat(host)
        part = self.run("worker", "--host-id", host, **environment)

        def new_heartbeat() -> bool:
            assert part.process.poll() is None, part.log.read_text()
            beat = self.heartbeat(host)
            return beat is not None and (known is None or beat.epoch > known.epoch)

        until(new_heartbeat, f"a heartbeat of {host}", timeout=STARTED_WITHIN)
        return part

    def await_heartbeat(self, host: str) -> None:
        """Wait for a heartbeat from now on: the latest of a time in which the broker hung may run out at once."""
        now = self.redis.time()[0]  # type: ignore[index]
        until(lambda: (beat := self.heartbeat(host)) and beat.at > now, f"another heartbeat of {host}")

    def heartbeat(self, host: str) -> Heartbeat | None:
        with self.broker.connect() as client:
            value = client.get(names.presence(host))
        return Heartbeat.model_validate_json(value) if value else None

    @property
    def settings(self) -> Settings:
        return configuration.load(
            state_dir=self.directory,
            broker_url=self.broker.url,
            broker_ca=self.broker.ca,
            database_url=self.database_url,
            principal="alice",
        )

    @property
    def fleet(self) -> Fleet:
        self._fleet = self._fleet or Fleet(self.settings)
        return self._fleet

    @property
    def redis(self) -> "redis.Redis":
        """The broker, as somebody who may do everything there."""
        self._redis = self._redis or self.broker.connect()
        return self._redis

    def item_of(self, run_id: str) -> str:
        """Return the queue item of a run of alice's, byte for byte, while its report is yet to be taken in."""
        for item in self.redis.lrange(names.reports("p:alice"), 0, -1):
            for report in map(json.loads, json.loads(item)["reports"]):
                if report["run"] == run_id:
                    return str(report["data"]["message"])
        raise AssertionError("the report has been taken in already")

    def genuine(self) -> dict[str, Any]:
        """Return the message of a ping for h1 that ran, to be changed."""
        if self._genuine is None:
            with frozen(self.parts[0].process.pid):  # the control worker, which would take the report in
                self._genuine = self.item_of(self.fleet.push("fleet.host.ping", on="h1").run_ids[0])
        found: dict[str, Any] = json.loads(self._genuine)
        return found

    def sign(self, message: dict[str, Any], *, by: str = "alice") -> None:
        """Sign a message in place as that principal, whatever it says."""
        held = credentials.load_principal(self.settings.principal_path(by), name=by)
        signing.sign_message(message, KeyPair.read(held.private_key.get_secret_value()), held.credential)

    def record(self, run_id: str, *, state: str, timeout: float = 30.0) -> Run:
        """Return the ledger's record of a run, once it is in that state."""

        def look() -> Run | None:
            with db.session(self.engine, write=False) as session:
                found = session.get(Run, run_id)
                if found is None or found.state != state:
                    return None
                session.expunge_all()
                return found

        return until(look, f"{run_id} is {state}", timeout=timeout)

    def life(self, run_id: str) -> list[AuditEvent]:
        """Return what the audit has of a run, in the order of recording."""
        with db.session(self.engine, write=False) as session:
            return audit.events(session, run=run_id, after_id=0)

    def events(self, event: str) -> list[AuditEvent]:
        with db.session(self.engine, write=False) as session:
            return audit.events(session, event=event, after_id=0)

    def end(self) -> None:
        if self._fleet is not None:
            self._fleet.close()
        if self._redis is not None:
            self._redis.close()
        for part in reversed(self.parts):
            if part.process.poll() is None:
                os.killpg(part.process.pid, signal.SIGKILL)
            part.process.wait(30)
        for spools in self.directory.glob("hosts/*/spool"):  # supervisors outlive the workers
            for spool in Spool.all(spools):
                spool.ask(b"s")


def _ending(started: System) -> Iterator[System]:
    """Lend a fleet, and end it."""
    yield started
    for part in started.parts:  # pytest shows it where the test failed
        print(f"--- {part.log.name}\n{part.log.read_text()}")
    started.end()


@pytest.fixture
def system(tmp_path: Path, broker: Broker, engine: Engine, migrated_url: str) -> Iterator[System]:
    """A fleet without any process yet, on an empty Valkey and an empty database."""
    yield from _ending(System(tmp_path, broker, migrated_url, engine))


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A fleet of one host, h1 (env=test), without Docker, which many tests use and leave as they found it.

    Its control worker and the host's are `parts`; its broker and database are its own. Tests that use it belong into
    one `xdist_group`, or it is started for each.
    """
    directory = tmp_path_factory.mktemp("standing")
    engine = db.open_engine(f"sqlite:///{directory / 'fleet.db'}")
    db.migrate(engine)
    with contextmanager(serve)("valkey", tmp_path_factory.mktemp("standing-valkey")) as broker:
        started = System(directory, broker, f"sqlite:///{directory / 'fleet.db'}", engine)
        started.start_control()
        started.enroll("h1", labels={"env": "test"})
        started.start_worker("h1")
        yield from _ending(started)
    engine.dispose()
