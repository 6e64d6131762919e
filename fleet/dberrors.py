"""What a database driver's error means to the user, decided by its code and never by its text.

`sqlite3` gives SQLite's result codes (Python ≥ 3.11), psycopg the server's SQLSTATE. A failed login has no SQLSTATE in
libpq; there the connection itself says whether a password was asked for, and a second login to the maintenance
database tells a missing database from a refused user.
"""

import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from fleet import errors

if TYPE_CHECKING:
    import psycopg

#: SQLite's primary result codes (https://sqlite.org/rescode.html): what happened, what to do.
_SQLITE = {
    sqlite3.SQLITE_FULL: ("has no space left on its disk; nothing was recorded", "free some space and try again"),
    sqlite3.SQLITE_BUSY: (
        "is held by another process for longer than 10 s",
        "is a backup or a second `fleet up` at work?",
    ),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that the file and its directory can be read and written"),
    sqlite3.SQLITE_READONLY: ("cannot be written", "check the owner and the mode of the file and its directory"),
    sqlite3.SQLITE_PERM: ("cannot be used", "check the owner and the mode of the file and its directory"),
    sqlite3.SQLITE_NOTADB: ("is no SQLite database", "set FLEET_DATABASE_URL to another file; nothing was changed"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "restore it from a backup, or move it away to begin anew"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "check the disk it lies on (`dmesg`, free space)"),
}
#: SQLSTATEs, or their first two digits (PostgreSQL, appendix A).
_POSTGRESQL = {
    "53100": ("has no space left on its disk; nothing was recorded", "free some space and try again"),
    "53300": ("takes no more connections", "raise max_connections, or stop something"),
    "42P01": ("has no Fleet tables yet", "start `fleet control` once: it makes them"),
    "42501": ("does not let this user do that", "GRANT it all rights on its schema"),
    "25006": ("can only be read", "name the primary server in FLEET_DATABASE_URL"),
    "40": ("was held by another change at the same time; nothing was recorded", "try again"),
    "53": ("is short of resources", "see the server's log"),
    "08": ("lost the connection", "is the server running?"),
    "57": ("ended the connection", "is the server running?"),
    "58": ("cannot be read or written", "see the server's log"),
}


def explain(cause: BaseException, *, name: str, url: URL) -> errors.FleetError | None:
    """Return the error to raise, or None where the fault is in the statement and hence ours."""
    if isinstance(cause, sqlite3.Error):
        return _sqlite(cause, name)
    import psycopg

    if isinstance(cause, psycopg.Error):
        return _postgresql(cause, name, url)
    return None


def _unavailable(name: str, what: str, remedy: str) -> errors.DatabaseUnavailable:
    return errors.DatabaseUnavailable(f"the database {name} {what}", remedy=remedy)


def _sqlite(cause: sqlite3.Error, name: str) -> errors.FleetError | None:
    # absent where the driver itself complains, for instance of a closed connection
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in _SQLITE:
        return _unavailable(name, *_SQLITE[code])
    if code == sqlite3.SQLITE_ERROR and isinstance(cause, sqlite3.OperationalError):
        return _unavailable(
            name, f"cannot do that ({cause})", "start `fleet control` once: it brings the tables up to date"
        )
    return None


def _postgresql(cause: "psycopg.Error", name: str, url: URL) -> errors.FleetError | None:
    import psycopg

    state = cause.sqlstate or ""
    for key in (state, state[:2]):
        if key in _POSTGRESQL:
            return _unavailable(name, *_POSTGRESQL[key])
    if not state and isinstance(cause, psycopg.ProgrammingError):
        return errors.SettingsInvalid(
            f"database URL {name}: {str(cause).strip()}", remedy="write postgresql://USER:PASSWORD@HOST/NAME"
        )
    if state or not isinstance(cause, psycopg.OperationalError):
        return None
    return _unavailable(name, *_failed_login(cause, url))


def _failed_login(cause: "psycopg.OperationalError", url: URL) -> tuple[str, str]:
    import psycopg

    login = cause.pgconn
    if login is not None and login.needs_password:
        return "wants a password", "write postgresql://USER:PASSWORD@HOST/NAME in FLEET_DATABASE_URL"
    if not isinstance(cause, psycopg.errors.ConnectionTimeout) and _lacks_database(url):
        return "does not exist on that server", f"create it: createdb {url.database}"
    if login is not None and login.used_password:
        return "refused the login", "check user and password in FLEET_DATABASE_URL"
    reason = " ".join(str(cause).split())
    return f"cannot be reached ({reason})", "is the server running? FLEET_DATABASE_URL says where it is"


def _lacks_database(url: URL) -> bool:
    import psycopg

    arguments = url.translate_connect_args(username="user", database="dbname")
    try:
        with psycopg.connect(**{**arguments, "dbname": "postgres"}, connect_timeout=5) as connection:
            wanted = url.database or url.username
            return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (wanted,)).fetchone() is None
    except psycopg.Error:
        return False
