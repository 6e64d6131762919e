"""The control plane's database: opening it, bringing its schema up to date, transactions, errors in the user's words.

SQLite (a file, WAL) and PostgreSQL mean the same to every caller. A writing session on SQLite begins with BEGIN
IMMEDIATE, so that writers queue for up to 10 s instead of failing half-way. Every error of a driver that leaves here
is one of `errors`, names the database without its password, and says what to do.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session, col

from fleet import errors, redaction

#: A SELECT of whatever.
Query = TypeVar("Query")

MIGRATIONS = Path(__file__).parent / "models" / "migrations"
#: Not Alembic's own default, so that another program's database is never taken for ours.
VERSION_TABLE = "fleet_version"
#: How long a writer waits for another one.
BUSY_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 5
#: Execution option of connections that will write; see `_prepare_sqlite`.
_WRITE = "fleet_write"
#: For JSON columns; kept, because `json.dumps` with options makes one anew for every call.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Lock(IntEnum):
    """Rights that one transaction at a time holds: keys of advisory locks in PostgreSQL, "fleet" and a number.

    Whoever takes several takes them in the order INGEST, ENROLL, TRUST, rows of hosts and principals, AUDIT: two who
    did it in different ones would wait for each other for ever.
    """

    #: bring the schema up to date
    MIGRATE = 0x666C656574_01
    #: append to the audit
    AUDIT = 0x666C656574_02
    #: take in reports
    INGEST = 0x666C656574_03
    #: let a host in
    ENROLL = 0x666C656574_04
    #: change keys, principals, or what hosts are told of them
    TRUST = 0x666C656574_05


def open_engine(url: str, *, create: bool = True) -> Engine:
    """Connect once and return the engine. With `create`, an SQLite file that is missing is made (mode 0600).

    Raises `errors.SettingsInvalid` for a URL that means nothing here, `errors.DatabaseUnavailable` for a database that
    does not answer, wants another password, or is no database.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        _prepare_file(Path(parsed.database or ""), create=create)
        engine = create_engine(
            parsed,
            json_serializer=_ENCODER.encode,
            hide_parameters=True,  # arguments of runs stay out of logs
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        _prepare_sqlite(engine)
    else:
        engine = create_engine(
            parsed,
            pool_pre_ping=True,
            json_serializer=_ENCODER.encode,
            hide_parameters=True,  # arguments of runs stay out of logs
            # a peer that vanished without a word is noticed within 10 s, also in the midst of a statement
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "tcp_user_timeout": 10_000,
                "application_name": "fleet",
            },
        )
    try:
        with translated(engine), engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def session(engine: Engine, *, write: bool = True) -> Iterator[Session]:
    """One transaction: committed at the end of the block, rolled back by an exception.

    With `write=False` it never waits for a writer on SQLite. Objects stay readable after the block.
    """
    bound = engine.execution_options(**{_WRITE: write})
    with translated(engine), Session(bound, expire_on_commit=False) as opened, opened.begin():
        yield opened


def take(opened: Session | Connection, lock: Lock) -> None:
    """Wait for the right and keep it until the transaction ends. A writing transaction on SQLite has every right."""
    connection = opened.connection() if isinstance(opened, Session) else opened
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int(lock)})


def narrowed(query: Query, *wanted: tuple[object, object]) -> Query:
    """Return a query for what has all of these values, as pairs of column and value; None as a value says nothing."""
    found: Any = query  # of one table or of several, which the stubs have no common word for
    for column, value in wanted:
        if value is not None:
            found = found.where(col(column) == value)
    narrowed_query: Query = found
    return narrowed_query


def newest_version() -> str:
    """Return the version of the schema that this code knows. File names begin with it; Alembic is not imported."""
    return max(_known_versions())


def migrate(engine: Engine) -> None:
    """Bring the schema up to date; one query where it is. Several processes may do so at once.

    Raises `errors.DatabaseUnavailable` for a database of a newer Fleet, or of another program.
    """
    with translated(engine):
        with engine.connect() as connection:
            if _version(connection) == newest_version():
                return
        with engine.execution_options(**{_WRITE: True}).begin() as connection:
            take(connection, Lock.MIGRATE)
            _upgrade(connection)


def schema_version(engine: Engine) -> str | None:
    """Return the version of the schema that the database has; None where it has none."""
    with translated(engine), engine.connect() as connection:
        return _version(connection)


def _known_versions() -> list[str]:
    return [path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")]


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def _upgrade(connection: Connection) -> None:
    version = _version(connection)
    if version == newest_version():
        return  # another process did it while this one waited
    if version is None:
        _refuse_foreign(connection)
    elif version not in _known_versions():
        raise errors.DatabaseUnavailable(
            f"the database {_name(connection.engine)} has schema {version}; this Fleet knows up to {newest_version()}",
            remedy="upgrade Fleet here, or set FLEET_DATABASE_URL to another database",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _refuse_foreign(connection: Connection) -> None:
    from fleet import models

    found = set(inspect(connection).get_table_names())
    if connection.dialect.name == "postgresql":
        # a PostgreSQL database may be shared, as long as no table has a name of ours
        found &= set(models.Host.metadata.tables)
    if found:
        raise errors.DatabaseUnavailable(
            f"the database {_name(connection.engine)} belongs to another program (it has a table {min(found)!r})",
            remedy="set FLEET_DATABASE_URL to an empty database; nothing was changed",
        )


def _parse(url: str) -> URL:
    scheme, separator, rest = url.partition("://")
    # A text that does not parse may carry its password anywhere: only the scheme is shown.
    shown = f"{scheme}://…" if separator else redaction.url(url)
    advice = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
    if scheme in {"postgres", "postgresql"}:
        url = f"postgresql+psycopg://{rest}"
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError, ImportError) as exc:
        raise errors.SettingsInvalid(f"database URL {shown!r} cannot be used", remedy=advice) from exc
    if backend not in {"sqlite", "postgresql"} or parsed.get_driver_name() not in {"pysqlite", "psycopg"}:
        raise errors.SettingsInvalid(f"database URL {shown!r}: Fleet does not know {scheme!r}", remedy=advice)
    if backend == "sqlite" and (parsed.database or ":memory:") == ":memory:":
        raise errors.SettingsInvalid(
            f"database URL {shown!r} names no file", remedy="write sqlite:///FILE: several processes share it"
        )
    return parsed


def _prepare_file(path: Path, *, create: bool) -> None:
    """Make the file and its directory, for the owner only: the database holds what was run where."""
    if path.exists():
        return
    if not create:
        raise errors.DatabaseUnavailable(
            f"there is no database at {path}",
            remedy="`fleet up` or `fleet control` makes it; FLEET_DATABASE_URL names it",
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as exc:
        raise errors.DatabaseUnavailable(
            f"the database {path} cannot be made ({exc.strerror})",
            remedy="name a place that can be written in FLEET_DATABASE_URL or FLEET_STATE_DIR",
        ) from exc


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        # the driver begins no transactions of its own accord; `begin` below does
        connection.isolation_level = None
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        # another program's file stays as it is; `migrate` refuses it
        if not tables or VERSION_TABLE in tables:
            _switch_to_wal(connection)
        # FULL: what is acknowledged to a host survives a power cut
        connection.executescript("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # Switching asks for an exclusive lock without waiting for it. Queueing for the write lock first makes processes
    # that open a new file at once take turns; the last one finds the work done.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    for attempt in range(100):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or attempt == 99:
                raise
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        else:
            return


def _name(engine: Engine) -> str:
    url = engine.url.difference_update_query(["password"])
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn errors of SQLAlchemy and the drivers into Fleet's; what is a mistake of ours passes unchanged."""
    from fleet import dberrors

    try:
        yield
    except (DBAPIError, sqlite3.Error) as exc:
        cause = exc.orig if isinstance(exc, DBAPIError) else exc
        known = dberrors.explain(cause, name=_name(engine), url=engine.url) if cause else None
        if known is None:
            raise
        raise known from exc
    except PoolTimeoutError as exc:
        raise errors.DatabaseUnavailable(
            f"the database {_name(engine)} has no free connection ({exc})", remedy="is it overloaded? try again"
        ) from exc
