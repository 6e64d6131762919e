"""Errands: what recorded reports leave to be done in the broker, kept until it is done.

Runs are attended to, hosts whose key or password has changed are announced, and hosts get the secrets that they asked
for. What fails is tried again with the next turn; what is forgotten with the lease, the next holder's rescue does, or
whoever wanted it asks again.
"""

import time
from itertools import islice

import redis
from sqlalchemy import Engine

from fleet.contracts.secrets import ASKED_FOR_SECONDS, SecretsWanted
from workers.control.attending import Attending
from workers.control.batches import Recorded
from workers.control.voice import Voice

#: Questions for secrets that wait at once; whoever is not among them asks again.
_MOST_WANTED = 1_000


class Errands:
    """What one control worker has to do yet."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", voice: Voice) -> None:
        self._client = client
        self._voice = voice
        self._attending = Attending(engine=engine, client=client, voice=voice)
        #: runs that something in the broker is to be done for
        self._unattended: set[str] = set()
        #: hosts whose key or password has changed
        self._changed: set[str] = set()
        #: runs whose hosts wait for secrets, and since when (monotonic)
        self._wanted: dict[tuple[str, str], tuple[SecretsWanted, float]] = {}

    def note(self, recorded: Recorded) -> None:
        """Take on what follows from what was committed."""
        self._unattended |= recorded.unattended
        self._changed |= recorded.changed
        asked = islice(recorded.wanted.items(), max(0, _MOST_WANTED - len(self._wanted)))
        self._wanted |= {run: (wanted, time.monotonic()) for run, wanted in asked}

    def run(self) -> None:
        """Do all of it, as far as it works; raises redis-py's errors and Fleet's."""
        if self._unattended:
            self._attending.attend(self._unattended)
            self._unattended.clear()
        for host in sorted(self._changed):
            self._voice.announce(host, self._client)
            self._changed.discard(host)
        for (host, run), (wanted, since) in list(self._wanted.items()):
            if self._voice.issue(host, run, wanted, self._client) or time.monotonic() - since > ASKED_FOR_SECONDS:
                del self._wanted[(host, run)]

    def forget(self) -> None:
        """Leave it to whoever has the lease next."""
        self._changed.clear()
        self._wanted.clear()  # whoever wants something asks again
        self._unattended.clear()  # the next holder's rescue begins with it
