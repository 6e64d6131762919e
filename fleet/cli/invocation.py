"""One call of the `fleet` command: the global options as they were given, and what follows from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.grammar import META

if TYPE_CHECKING:
    import redis
    from sqlmodel import Session

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
        from fleet import settings

        return settings.load(config=Path(self.config) if self.config else None, **flags)


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

    engine = db.open_engine(settings.resolved_database_url, create=create)
    try:
        db.migrate(engine)
        with db.session(engine, write=write) as session:
            yield session
    finally:
        engine.dispose()


@contextmanager
def broker(settings: "Settings") -> Iterator["redis.Redis"]:
    """Connect to the broker; its errors become `errors.BrokerUnavailable` or `errors.BrokerRefused`."""
    from fleet.broker import connection

    url = settings.require_broker_url()
    client = connection.connect(url, name="cli")
    try:
        with connection.translated(url):
            yield client
    finally:
        client.close()
