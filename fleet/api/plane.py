"""The plane: what the API has of the control plane, its database, its broker user and the fleet's keys."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import redis
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import db
from fleet.address import Address
from fleet.broker.connection import connect, translated
from fleet.keyring import Keyring, Keyrings
from fleet.settings import Settings

Found = TypeVar("Found")
#: Requests that use the broker at once; more take turns.
_CONNECTIONS = 8


@dataclass(frozen=True, kw_only=True)
class Control:
    """All three for one transaction of the database."""

    session: Session
    client: "redis.Redis"
    ring: Keyring


class Plane:
    """Open for the life of the process; thread-safe."""

    def __init__(self, settings: Settings, *, config: Path | None = None) -> None:
        """Open all of it. `config` is the settings file that was named, for what is started from here.

        Raises `errors.SettingsInvalid`, `errors.DatabaseUnavailable`, and `errors.LocalFault` where the fleet's keys
        are not on this machine. The broker may be away.
        """
        self.settings, self.config = settings, config
        self.broker: Address = settings.require_broker()
        self._engine: Engine = db.open_engine(settings.resolved_database_url)
        db.migrate(self._engine)
        self._keyrings = Keyrings(settings.signing_keys_path, partial(db.session, self._engine))
        self._client = connect(self.broker, name="api", connections=_CONNECTIONS, retries=1)

    def read(self) -> AbstractContextManager[Session]:
        """One reading transaction; it waits for no writer."""
        return db.session(self._engine, write=False)

    def look(self, find: Callable[[Session], Found]) -> Found:
        """Return what `find` returns of one reading transaction: for whoever calls it in a thread."""
        with self.read() as session:
            return find(session)

    def write(self) -> AbstractContextManager[Session]:
        """One writing transaction of the database alone."""
        return db.session(self._engine)

    @contextmanager
    def registry(self) -> Iterator["redis.Redis"]:
        """Give the broker, as the control plane's user."""
        with translated(self.broker):
            yield self._client

    @contextmanager
    def control(self) -> Iterator[Control]:
        """Give database, broker and keys, for one transaction that is committed when the block ends well."""
        with translated(self.broker), self.write() as session:
            yield Control(session=session, client=self._client, ring=self.ring(session))

    def ring(self, session: Session) -> Keyring:
        """Return the fleet's keys of now; raise `errors.LocalFault` for one that is not on this machine."""
        return self._keyrings.current(session)

    def close(self) -> None:
        self._client.close()
        self._engine.dispose()
