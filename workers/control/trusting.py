"""Trusting: keeps what the broker and the hosts hold of keys, members and permissions as the database has it.

The broker forgets its users when it starts without an ACL file; whatever somebody changed and was cut off in before it
was announced, is announced here; overlaps of keys end; and the process hears of keys that another one has made.
"""

from typing import Protocol

import redis
from sqlalchemy import Engine

from fleet import clock, db, logs, members, policies, principals, vault
from fleet.keyring import Keyrings
from fleet.security import broker_users

log = logs.get(__name__)


class Lease(Protocol):
    """The right to say what the broker holds."""

    def held(self) -> bool: ...


class Trusting:
    """Looks once at each `run`; remembers which start of the broker it has set up."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", keyrings: Keyrings, lease: Lease) -> None:
        self._engine = engine
        self._client = client
        self._keyrings = keyrings
        self._lease = lease
        #: the broker's start, and its users, as they were set up last
        self._set_up: str | None = None
        #: version of the policy that hosts were told last
        self._policy_told = 0

    def run(self) -> None:
        """Look once; raises redis-py's errors and Fleet's, and may be called again."""
        ring = self._keyrings.refresh()
        if not self._lease.held():
            self._set_up, self._policy_told = None, 0
            return
        started = broker_users.run_id(self._client)
        if started != self._set_up:
            with db.session(self._engine) as session:
                changes = members.reconcile(session, self._client, ring)
            self._set_up = started
            log.info("broker.set_up", added=len(changes.added), removed=len(changes.removed))
        with db.session(self._engine) as session:
            renewed = principals.renew(session, ring, now=clock.now()) | members.renew_hosts(session, ring)
            vault.seal_anew(session, ring)
        with db.session(self._engine) as session:
            if renewed:  # before the credentials, which are by the newest key: hosts drop what they cannot check
                members.announce_trust(session, self._client, ring)
                members.reconcile(session, self._client, ring)
            for host in members.unannounced(session):
                members.announce_host(session, self._client, ring, host)
            newest = policies.current(session)
            if newest is not None and (renewed or newest.number > self._policy_told):
                members.announce_policy(session, self._client, ring)
                self._policy_told = newest.number

    def prune(self) -> None:
        """Take the broker users of tokens out that can be used no more."""
        with db.session(self._engine) as session:
            members.prune_joiners(session, self._client)
