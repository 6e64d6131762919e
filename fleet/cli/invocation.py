"""One call of the `fleet` command: the global options as they were given, and what follows from them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.grammar import META

if TYPE_CHECKING:
    import redis
    from sqlalchemy import Engine
    from sqlmodel import Session

    from fleet.address import Address
    from fleet.keyring import Keyring
    from fleet.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The global options of this call."""

    format: str = "table"
    quiet: bool = False
    yes: bool = False
    no_color: bool = False
    config: str | None = None
    debug: bool = False

    def settings(self, **flags: Any) -> "Settings":
        """Read the settings with the command's own flags on top; raises `errors.SettingsInvalid`."""
        from fleet import configuration

        return configuration.load(config=Path(self.config) if self.config else None, **flags)


def current() -> Invocation:
    """Return the invocation that is under way."""
    meta = click.get_current_context().find_root().meta
    prefix = f"{META}."
    return Invocation(**{name.removeprefix(prefix): meta[name] for name in meta if name.startswith(prefix)})


@contextmanager
def database(settings: "Settings", *, write: bool = False, create: bool = False) -> Iterator["Session"]:
    """Open the control plane's database for one transaction; committed when the block ends well.

    Raises `errors.DatabaseUnavailable`; without `create` also where there is no SQLite file yet, because reading must
    not make an empty one that looks like a fleet without hosts.
    """
    from fleet import db

    with _engine(settings, create=create) as engine, db.session(engine, write=write) as session:
        yield session


@contextmanager
def _engine(settings: "Settings", *, create: bool) -> "Iterator[Engine]":
    from fleet import db

    engine = db.open_engine(settings.resolved_database_url, create=create)
    try:
        db.migrate(engine)
        yield engine
    finally:
        engine.dispose()


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """What the control plane works with: its database, its broker, and the fleet's keys."""

    session: "Session"
    client: "redis.Redis"
    ring: "Keyring"


@contextmanager
def control_plane(settings: "Settings", *, create: bool = False) -> "Iterator[ControlPlane]":
    """Open all three for one transaction of the database, committed when the block ends well.

    Raises `errors.LocalFault` where the fleet's keys are not on this machine, and what `database` and `broker` raise.
    """
    with control_planes(settings, create=create) as opened, opened() as control:
        yield control


@contextmanager
def control_planes(
    settings: "Settings", *, create: bool = False
) -> "Iterator[Callable[[], AbstractContextManager[ControlPlane]]]":
    """Give what opens all three for one transaction after another; see `control_plane`."""
    from fleet import db, keyring

    @contextmanager
    def opened() -> "Iterator[ControlPlane]":
        with db.session(engine) as session:
            yield ControlPlane(session=session, client=client, ring=keyring.obtain(session, settings.signing_keys_path))

    with broker(settings) as client, _engine(settings, create=create) as engine:
        yield opened


def confirm(question: str) -> None:
    """Ask whether to go on, unless --yes was given; raises `errors.Refused` where nobody says yes."""
    from fleet import errors

    if current().yes:
        return
    if not sys.stdin.isatty() or not click.confirm(question, err=True):
        raise errors.Refused(f"{question} Nobody said yes", remedy="--yes says it beforehand")


@contextmanager
def broker(settings: "Settings", *, address: "Address | None" = None) -> Iterator["redis.Redis"]:
    """Connect to the broker, or to that `address`; raises `errors.BrokerUnavailable` and what is one."""
    from fleet.broker import connection

    address = address or settings.require_broker()
    client = connection.connect(address, name="cli")
    try:
        with connection.translated(address):
            yield client
    finally:
        client.close()
