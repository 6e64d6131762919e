"""The command line as people run it: `fleet` as a process, on a real broker and database."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from fleet import credentials, db
from tests import factories
from tests.services import forks
from tests.services.broker import Broker

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error; fails where there is more."""
        [line] = self.err.strip().splitlines()
        assert line.startswith("fleet: error: "), line
        return line


@dataclass
class Cli:
    """Runs `fleet` with an environment of its own."""

    environment: dict[str, str] = field(default_factory=dict)
    #: whether a command that is waited for is a fork, see `tests.services.forks`, or an interpreter's start
    forked: bool = True

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "fleet", *words]

    def environ(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        return {**inherited, "PYTHONPATH": str(ROOT), **self.environment, **more}

    def __call__(self, *words: str, stdin: str = "", cwd: Path | None = None, **environment: str) -> Result:
        variables, directory = self.environ(**environment), cwd or self.environment["FLEET_STATE_DIR"]
        if self.forked:
            done = forks.run(words, env=variables, cwd=directory, stdin=stdin)
        else:
            done = subprocess.run(
                self.command(*words),
                input=stdin,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=120,
                check=False,
                cwd=directory,
                env=variables,
            )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.environment["FLEET_STATE_DIR"],
            env=self.environ(**environment),
        )


def environment(state: Path, **settings: str) -> Mapping[str, str]:
    state.mkdir(exist_ok=True)
    return {"FLEET_STATE_DIR": str(state), "FLEET_PRINCIPAL": "alice", **settings}


@pytest.fixture
def backend() -> str:
    """Both databases have tests of their own; the command line is tested on one."""
    return "sqlite"


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """`fleet` where nothing is configured."""
    return Cli(dict(environment(tmp_path / "state")))


@pytest.fixture
def cli(tmp_path: Path, broker: Broker, migrated_url: str) -> Cli:
    """`fleet` with an empty broker, and a database that knows the fleet's key and alice, who may do everything."""
    settings = environment(tmp_path / "state", FLEET_BROKER_URL=broker.url, FLEET_DATABASE_URL=migrated_url)
    engine = db.open_engine(migrated_url)
    with db.session(engine) as session:
        factories.found(session)
        factories.introduce(session, "alice")
    engine.dispose()
    keys = {"keys": [factories.key("fleet").secret().get_secret_value()]}
    credentials.write_private(tmp_path / "state" / "signing-keys.json", json.dumps(keys), what="keys", remedy="")
    held = factories.principal_credential("alice", broker_url=broker.url)
    credentials.save_principal(tmp_path / "state" / "principals" / "alice.json", held)
    return Cli(dict(settings))


@pytest.fixture
def ledger(migrated_url: str) -> Iterator[Engine]:
    """The database behind `cli`."""
    engine = db.open_engine(migrated_url)
    yield engine
    engine.dispose()
