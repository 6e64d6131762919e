"""A fleet for tests: control worker and host workers as processes of their own, on a real broker and database."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from fleet import audit, credentials, db, enrollment, joining, names
from fleet import settings as fleet_settings
from fleet.client import Fleet
from fleet.contracts.presence import Heartbeat
from fleet.models import AuditEvent, Run
from fleet.settings import Settings
from tests.services.broker import Broker, serve
from tests.services.waiting import until
from workers.host.spool import Spool

ROOT = Path(__file__).parents[2]
#: An Engine that is not there: workers of tests without Docker must not find the machine's own.
NO_DOCKER = "unix:///nonexistent/docker.sock"


@dataclass
class Part:
    """One process of the fleet."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def stop(self, *, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
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

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "DOCKER_"))}
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join([*(str(path) for path in self.packages), str(ROOT)]),
            "FLEET_STATE_DIR": str(self.directory),
            "FLEET_BROKER_URL": self.broker.url,
            "FLEET_DATABASE_URL": self.database_url,
            "FLEET_DOCKER_URL": NO_DOCKER,
            "FLEET_PRINCIPAL": "alice",
            **more,
        }

    def run(self, *words: str, prefix: Sequence[str] = (), **environment: str) -> Part:
        """Start `fleet …` as a process, by another program if `prefix` names one; its output goes to a file that a
        failing test shows."""
        log = self.directory / f"{words[0]}-{len(self.parts)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "fleet", *words],
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        part = Part(process, log)
        self.parts.append(part)
        return part

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `fleet …` to its end, as somebody who has the control plane's settings."""
        return subprocess.run(
            [sys.executable, "-m", "fleet", *words],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def start_control(self) -> Part:
        part = self.run("control")
        with self.broker.connect() as client:
            until(lambda: client.exists(names.CONTROL_LEASE), "a control worker holds the lease")
        return part

    def enroll(self, host: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Let a host in by a token, over the broker."""
        with db.session(self.engine) as session:
            token = enrollment.create_token(
                session, broker_url=self.broker.url, created_by="alice", host_id=host, labels=labels
            )
        credential = joining.join(token, host=host, version="test")
        credentials.save(self.settings.credential_path(host), credential)

    def start_worker(self, host: str, **environment: str) -> Part:
        """Start the worker of an enrolled host and wait for its first heartbeat."""
        known = self.heartbeat(host)
        part = self.run("worker", "--host-id", host, **environment)

        def new_heartbeat() -> bool:
            assert part.process.poll() is None, part.log.read_text()
            beat = self.heartbeat(host)
            return beat is not None and (known is None or beat.epoch > known.epoch)

        until(new_heartbeat, f"a heartbeat of {host}")
        return part

    def heartbeat(self, host: str) -> Heartbeat | None:
        with self.broker.connect() as client:
            value = client.get(names.presence(host))
        return Heartbeat.model_validate_json(value) if value else None

    @property
    def settings(self) -> Settings:
        return fleet_settings.load(
            state_dir=self.directory, broker_url=self.broker.url, database_url=self.database_url, principal="alice"
        )

    @property
    def fleet(self) -> Fleet:
        self._fleet = self._fleet or Fleet(self.settings)
        return self._fleet

    @property
    def redis(self) -> "redis.Redis":
        return self.fleet.dispatcher.redis

    def record(self, run_id: str, *, state: str) -> Run:
        """Return the ledger's record of a run, once it is in that state."""

        def look() -> Run | None:
            with db.session(self.engine, write=False) as session:
                found = session.get(Run, run_id)
                if found is None or found.state != state:
                    return None
                session.expunge_all()
                return found

        return until(look, f"{run_id} is {state}")

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
        for part in reversed(self.parts):
            if part.process.poll() is None:
                os.killpg(part.process.pid, signal.SIGKILL)
            part.process.wait(10)
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
