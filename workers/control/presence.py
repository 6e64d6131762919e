"""The presence sweep: carries the moment of each host's last heartbeat from the registry into the database.

The registry forgets (its keys expire); the database remembers when a host was last seen, so that silence has an age.
"""

from datetime import datetime

import redis
from sqlalchemy import Engine, bindparam, update
from sqlmodel import col, select

from fleet import clock, db, presence
from fleet.models import Host, Membership


class PresenceSweep:
    """Reads all heartbeats, and writes down those that are new."""

    def __init__(self, *, engine: Engine, client: "redis.Redis") -> None:
        self._engine = engine
        self._client = client
        self._seen: dict[str, float] = {}

    def run(self) -> int:
        """Sweep once and return how many hosts were seen anew; raises redis-py's errors and Fleet's."""
        with db.session(self._engine, write=False) as session:
            hosts = session.exec(select(Host.id).where(Host.membership == Membership.ACCEPTED)).all()
        beats = {host: beat for host, beat in presence.read(self._client, hosts).items() if beat is not None}
        news: dict[str, datetime] = {
            host: clock.from_unix(beat.at) for host, beat in beats.items() if self._seen.get(host) != beat.at
        }
        if news:
            table = Host.__table__  # type: ignore[attr-defined]  # SQLModel makes it
            with db.session(self._engine) as session:
                session.connection().execute(
                    update(table).where(col(Host.id) == bindparam("host")).values(last_seen_at=bindparam("at")),
                    [{"host": host, "at": at} for host, at in news.items()],
                )
        self._seen = {host: beat.at for host, beat in beats.items()}
        return len(news)
