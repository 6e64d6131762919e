"""The presence sweep: carries the moment of each host's last heartbeat from the registry into the database.

The registry forgets (its keys expire); the database remembers when a host was last seen, so that silence has an age.
Moments are the broker's, as those of reports are. A heartbeat that names another one than its key could have lived
through is taken for the nearest: no host is seen in the future, which it would not be offline before.
"""

import redis
from sqlalchemy import Engine, Table
from sqlmodel import select

from fleet import bulk, clock, db, presence
from fleet.contracts.presence import PRESENCE_TTL
from fleet.models import Host, Membership

_TABLE: Table = Host.__table__  # type: ignore[attr-defined]  # SQLModel makes it


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
        beats = {host: beat.at for host, beat in presence.read(self._client, hosts).items() if beat is not None}
        latest = clock.of_broker(self._client)
        earliest = latest - PRESENCE_TTL.total_seconds()
        news = [
            {"id": host, "last_seen_at": clock.from_unix(min(max(at, earliest), latest))}
            for host, at in beats.items()
            if self._seen.get(host) != at
        ]
        if news:
            with db.session(self._engine) as session:
                bulk.update(session, _TABLE, news, match={"id": "id"})
        self._seen = beats
        return len(news)
