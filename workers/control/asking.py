"""Asking: whether a host that writes no heartbeats is there, while it has runs that have not ended.

It is asked by a word on its control list, which a worker takes off at once, whatever else it does, and which lies there
where none is. The word is what was decided of the host's availability, which it may hear any number of times. A host
without open runs is not asked: nothing is to be judged of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet import availability, db
from fleet.contracts.hosts import UNLISTED
from fleet.contracts.presence import PRESENCE_TTL
from fleet.models import Host, Membership, Run
from fleet.runs import OPEN
from workers.control.voice import Voice

#: A host that has answered is asked again after that, in seconds.
_AGAIN = 30.0
#: One that has not answered for so long is taken for one without a heartbeat.
_ANSWERS_WITHIN = PRESENCE_TTL.total_seconds()


@dataclass
class _Question:
    """The word that lies on a host's control list, or did."""

    key: str
    word: str
    asked_at: float
    answered: bool = False


class Asking:
    """Asks at each `look`, and remembers what was asked."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", voice: Voice, elapsed: Callable[[], float]) -> None:
        self._engine = engine
        self._client = client
        self._voice = voice
        self._elapsed = elapsed
        self._questions: dict[str, _Question] = {}

    def look(self) -> frozenset[str]:
        """Ask where it is time to, and return the hosts that answer, or have not had the time to.

        Raises redis-py's errors and Fleet's.
        """
        with db.session(self._engine, write=False) as session:
            hosts = _in_doubt(session)
        self._questions = {host: asked for host, asked in self._questions.items() if host in hosts}
        now = self._elapsed()
        command: Any = self._client
        for asked in self._questions.values():
            asked.answered = asked.answered or command.lpos(asked.key, asked.word) is None
        due = [host for host in hosts.values() if self._is_due(host.id, now)]
        for host in due:
            for key, word in self._voice.words([(host.id, availability.decision(host, by="control"))]):
                if command.lpos(key, word) is None:  # a control worker before this one may have asked
                    command.lpush(key, word)
                self._questions[host.id] = _Question(key, word, now)
        return frozenset(
            host for host, asked in self._questions.items() if asked.answered or now - asked.asked_at < _ANSWERS_WITHIN
        )

    def forget(self) -> None:
        """Begin anew: nobody watched for a while."""
        self._questions.clear()

    def _is_due(self, host: str, now: float) -> bool:
        asked = self._questions.get(host)
        return asked is None or (asked.answered and now - asked.asked_at >= _AGAIN)


def _in_doubt(session: Session) -> dict[str, Host]:
    """Return the unlisted hosts with runs that have not ended."""
    busy = select(col(Run.host_id)).where(col(Run.state).in_(OPEN))
    query = select(Host).where(
        Host.membership == Membership.ACCEPTED,
        col(Host.facts)[UNLISTED].as_boolean(),
        col(Host.id).in_(busy),
    )
    return {host.id: host for host in session.exec(query)}
