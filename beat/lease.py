"""The lease: the right to be the one control worker that writes the ledger, for a bounded time.

It is a key that expires on its own and holds its owner's token. Whoever holds it renews it well before it runs out, and
believes in it only until shortly before the moment at which the broker could have let it go: a holder that was frozen
wakes up without it, also on a machine that slept. What must not happen without the lease also checks the key in the
same transaction (`token`).
"""

import secrets
from datetime import timedelta
from typing import Any

import redis

from fleet import clock, logs

log = logs.get(__name__)

#: How long the lease lives without renewal; another control worker takes over within this time of a crash.
TTL = timedelta(seconds=10)
#: It is not believed in during its last two seconds: time for what was begun under it, and for clocks that drift.
_MARGIN = timedelta(seconds=2)


class Lease:
    """One candidate for the lease at `key`. `attempt` is called again and again, by a beat; the rest is thread-safe."""

    def __init__(self, client: "redis.Redis", *, key: str, ttl: timedelta = TTL) -> None:
        self._client = client
        self._key = key
        self._ttl = ttl
        self.token = secrets.token_hex(16)
        #: moment (of `clock.elapsed`) until which the lease is believed in
        self._until = float("-inf")

    def held(self) -> bool:
        """Say whether the lease is mine, without asking the broker."""
        return clock.elapsed() < self._until

    def attempt(self) -> bool:
        """Renew the lease, or take it where nobody has it; return whether it is mine. Raises redis-py's errors."""
        held_before = self.held()
        asked_at = clock.elapsed()  # the broker counts from some later moment, so this errs on the safe side
        mine = bool(self._client.set(self._key, self.token, nx=True, px=self._ttl)) or self._renew()
        self._until = asked_at + (self._ttl - _MARGIN).total_seconds() if mine else float("-inf")
        if mine is not held_before:
            log.info("lease.gained" if mine else "lease.missed", key=self._key)
        return mine

    def release(self) -> None:
        """Give the lease up, so that the next one need not wait for it to run out. Raises redis-py's errors."""
        self._until = float("-inf")
        pipe: Any
        with self._client.pipeline() as pipe:
            try:
                pipe.watch(self._key)
                if pipe.get(self._key) == self.token:
                    pipe.multi()
                    pipe.delete(self._key)
                    pipe.execute()
            except redis.WatchError:
                return  # it has changed hands in between

    def _renew(self) -> bool:
        pipe: Any
        with self._client.pipeline() as pipe:
            try:
                pipe.watch(self._key)
                if pipe.get(self._key) != self.token:
                    return False
                pipe.multi()
                pipe.pexpire(self._key, self._ttl)
                (renewed,) = pipe.execute()
            except redis.WatchError:
                return False
            return bool(renewed)
