"""Databases of their own for tests: an SQLite file, and a PostgreSQL database that is dropped afterwards.

`TEST_POSTGRES_URL` names a server on which databases may be made. Without one its tests are skipped on a laptop and
fail where CI is set. A migrated database is a copy of one that was migrated once.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from fleet import db
from tests.services.availability import missing

SERVER = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")


def administer(statement: str) -> None:
    with psycopg.connect(SERVER, autocommit=True, connect_timeout=30) as connection:
        connection.execute(statement)


def url_of(name: str) -> str:
    return f"{SERVER.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def postgres() -> None:
    try:
        administer("SELECT 1")
    except psycopg.OperationalError as exc:
        missing(f"no PostgreSQL at {SERVER} ({exc}); TEST_POSTGRES_URL names another")


@pytest.fixture(scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Migrated databases to copy, by backend, made when first asked for."""
    made: dict[str, str] = {"directory": str(tmp_path_factory.mktemp("databases"))}
    yield made
    if "postgresql" in made:
        administer(f"DROP DATABASE {made['postgresql']} WITH (FORCE)")


def _migrate(url: str) -> None:
    engine = db.open_engine(url)
    db.migrate(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    """Run a test on both databases."""
    if request.param == "postgresql":
        request.getfixturevalue("postgres")
    return str(request.param)


@pytest.fixture
def database_url(backend: str, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'state' / 'fleet.db'}"
        return
    name = f"fleet_test_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    yield url_of(name)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def migrated_url(backend: str, tmp_path: Path, _templates: dict[str, str]) -> Iterator[str]:
    """URL of a database with the newest schema and no rows."""
    if backend == "sqlite":
        template = Path(_templates["directory"]) / "template.db"
        if not template.exists():
            _migrate(f"sqlite:///{template}")
        path = tmp_path / "fleet.db"
        shutil.copy(template, path)
        yield f"sqlite:///{path}"
        return
    if "postgresql" not in _templates:
        template_name = f"fleet_template_{uuid.uuid4().hex}"
        administer(f"CREATE DATABASE {template_name}")
        _templates["postgresql"] = template_name
        _migrate(url_of(template_name))
        # What somebody is connected to cannot be copied, and a session ends some time after its client.
        administer(f"SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '{template_name}'")
    name = f"fleet_test_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name} TEMPLATE {_templates['postgresql']}")
    yield url_of(name)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(migrated_url: str) -> Iterator[Engine]:
    """An engine on a database with the newest schema and no rows."""
    opened = db.open_engine(migrated_url)
    yield opened
    opened.dispose()
