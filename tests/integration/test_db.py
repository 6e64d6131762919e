"""The database: opening, migrating, transactions, and errors that say what to do."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from fleet import audit, db, errors, inventory, models
from tests import factories
from tests.services import database as databases

MIGRATE = "import sys; from fleet import db; db.migrate(db.open_engine(sys.argv[1]))"


def test_the_migrations_make_exactly_the_tables_of_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": db.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, models.Host.metadata) == []


def test_the_newest_version_is_the_head_that_alembic_finds() -> None:
    assert ScriptDirectory(str(db.MIGRATIONS)).get_current_head() == db.newest_version()


def test_four_processes_may_migrate_an_empty_database_at_once(database_url: str) -> None:
    command = [sys.executable, "-c", MIGRATE, database_url]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(each.communicate()[1], each.returncode) for each in started] == [("", 0)] * 4
    engine = db.open_engine(database_url)
    with db.session(engine) as session:
        assert inventory.hosts(session) == []
    engine.dispose()


def test_migrating_a_current_database_does_not_import_alembic(migrated_url: str) -> None:
    code = f"{MIGRATE}; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, migrated_url], check=False).returncode == 0


def test_a_database_of_a_newer_fleet_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {db.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(errors.DatabaseUnavailable, match=r"has schema 9999; .*upgrade Fleet here"):
        db.migrate(engine)


def test_another_programs_database_is_refused_and_left_alone(database_url: str) -> None:
    engine = db.open_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE host (name TEXT)"))
    with pytest.raises(errors.DatabaseUnavailable, match="belongs to another program"):
        db.migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM host")).scalar() == 0
    engine.dispose()


def test_another_programs_sqlite_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE song (title TEXT)")
    theirs.close()
    before = path.read_bytes()
    engine = db.open_engine(f"sqlite:///{path}")
    with pytest.raises(errors.DatabaseUnavailable, match="'song'"):
        db.migrate(engine)
    engine.dispose()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("groceries " * 100)
    with pytest.raises(errors.DatabaseUnavailable, match="is no SQLite database"):
        db.open_engine(f"sqlite:///{path}")
    assert path.read_text() == "groceries " * 100


def test_a_new_sqlite_file_and_its_directory_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "fleet.db"
    engine = db.open_engine(f"sqlite:///{path}")
    db.migrate(engine)
    with db.session(engine) as session:
        factories.enroll(session, "edge-1")
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    engine.dispose()
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_missing_file_is_named_where_none_is_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(errors.DatabaseUnavailable, match=r"there is no database at .*fleet control"):
        db.open_engine(f"sqlite:///{tmp_path / 'fleet.db'}", create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://root:secret@db/fleet", "does not know 'mysql'"),
        ("postgresql://u:secret@db:port/fleet", "cannot be used"),
        ("sqlite://", "names no file"),
        ("fleet.db", "cannot be used"),
        ("postgresql://u:secret@127.0.0.1/fleet?colour=red", 'invalid connection option "colour"'),
    ],
)
def test_a_url_that_means_nothing_is_a_wrong_setting(url: str, says: str) -> None:
    with pytest.raises(errors.SettingsInvalid, match=says) as caught:
        db.open_engine(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_refuses_is_named_without_its_password() -> None:
    with pytest.raises(errors.DatabaseUnavailable, match="cannot be reached") as caught:
        db.open_engine("postgresql://fleet:secret@127.0.0.1:1/fleet")
    assert "secret" not in str(caught.value)
    assert "fleet:***@127.0.0.1:1" in str(caught.value)


@pytest.mark.usefixtures("postgres")
def test_a_database_that_does_not_exist_says_how_to_make_it() -> None:
    with pytest.raises(errors.DatabaseUnavailable, match="does not exist on that server; create it: createdb nowhere"):
        db.open_engine(databases.url_of("nowhere"))


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = db.open_engine(f"sqlite:///{tmp_path / 'fleet.db'}")
    db.migrate(engine)

    def fill() -> None:
        with db.session(engine) as session:
            # SQLite then answers SQLITE_FULL, as it does for a full disk
            session.execute(text("PRAGMA max_page_count = 1"))
            audit.record_many(session, [audit.Entry(event="x.done", actor="control", data={"x": "x" * 9_000})] * 50)

    with pytest.raises(errors.DatabaseUnavailable, match="no space left on its disk; nothing was recorded; free some"):
        fill()
    with db.session(engine) as session:
        assert audit.events(session) == []
    engine.dispose()


def test_writers_queue_instead_of_failing(engine: Engine) -> None:
    failures: list[BaseException] = []

    def write(host: str) -> None:
        try:
            for _ in range(10):
                with db.session(engine) as session:
                    factories.enroll(session, host)
                    audit.record(session, event="host.enrolled", actor="control", host_id=host)
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    threads = [threading.Thread(target=write, args=(f"edge-{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with db.session(engine, write=False) as session:
        assert len(audit.events(session)) == 40
        assert audit.verify(session) is None


def test_an_exception_rolls_everything_back(engine: Engine) -> None:
    def fail() -> None:
        with db.session(engine) as session:
            factories.enroll(session, "edge-1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with db.session(engine) as session:
        assert inventory.hosts(session) == []


@pytest.mark.parametrize("statement", ["UPDATE audit_event SET actor = 'x'", "DELETE FROM audit_event"])
def test_the_database_refuses_to_change_the_audit(engine: Engine, statement: str) -> None:
    with db.session(engine) as session:
        audit.record(session, event="host.enrolled", actor="control")
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(statement))


def test_the_database_refuses_to_replace_or_truncate_the_audit(engine: Engine, backend: str) -> None:
    with db.session(engine) as session:
        audit.record(session, event="host.enrolled", actor="control")
    statement = "TRUNCATE audit_event"
    if backend == "sqlite":
        statement = "INSERT OR REPLACE INTO audit_event SELECT * FROM audit_event"
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.usefixtures("postgres")
def test_a_connection_that_the_server_ended_is_an_error_of_ours(database_url: str, backend: str) -> None:
    if backend != "postgresql":
        pytest.skip("SQLite has no server")
    engine = db.open_engine(database_url)

    def be_cut_off() -> None:
        with db.session(engine) as session:
            pid = session.connection().execute(text("SELECT pg_backend_pid()")).scalar()
            with psycopg.connect(databases.SERVER, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            session.connection().execute(text("SELECT 1"))

    with pytest.raises(errors.DatabaseUnavailable, match="ended the connection"):
        be_cut_off()
    with db.session(engine) as session:
        assert session.connection().execute(text("SELECT 1")).scalar() == 1
    engine.dispose()
