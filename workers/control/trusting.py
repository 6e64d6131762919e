"""Trusting: keeps what the broker and the hosts hold of keys, members and permissions as the database has it.

The broker forgets its users when it starts without an ACL file; whatever somebody changed and was cut off in before it
was announced, is announced here; overlaps of keys end; and the process hears of keys that another one has made.
"""

from typing import Protocol

import redis
from sqlalchemy import Engine

from fleet import clock, db, keyring, logs, members, policies, principals, vault
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
        #: versions of the statement and of the policy that hosts were told last: not before that is done, so what
        #: fails is done again. 0 where nobody knows what has reached them.
        self._trust_told = self._policy_told = 0

    def run(self) -> None:
        """Look once; raises redis-py's errors and Fleet's, and may be called again."""
        self._keyrings.refresh()
        if not self._lease.held():
            self._forget()
            return
        self._set_the_broker_up()
        with db.session(self._engine) as session:
            db.take(session, db.Lock.TRUST)
            ring = self._keyrings.current(session)
            renewed = principals.renew(session, ring, now=clock.now()) | members.renew_hosts(session, ring)
            vault.seal_anew(session, ring)
        if renewed:  # which is on record, so nothing but this says that it is to be announced
            self._forget()
            self._set_the_broker_up()
        self._announce()

    def _forget(self) -> None:
        self._set_up, self._trust_told, self._policy_told = None, 0, 0

    def _set_the_broker_up(self) -> None:
        """Leave in the broker what is to be there, where it has started anew or nobody knows what it has."""
        started = broker_users.run_id(self._client)
        if started == self._set_up:
            return
        self._forget()  # what it has lost of its lists, no host has read
        with db.session(self._engine) as session:
            changes = members.reconcile(session, self._client, self._keyrings.current(session))
        self._set_up = started
        log.info("broker.set_up", added=len(changes.added), removed=len(changes.removed))

    def _announce(self) -> None:
        """Tell hosts what nobody has told them for certain; of trust first, or they could not check what follows."""
        with db.session(self._engine) as session:
            ring = self._keyrings.current(session)
            version = keyring.stated(session).version
            if version > self._trust_told:
                members.announce_trust(session, self._client, ring)
                self._trust_told = version
            unannounced = members.unannounced(session)
        for host in unannounced:  # each on its own: the rows of many would be kept from the ingest
            with db.session(self._engine) as session:
                members.announce_host(session, self._client, self._keyrings.current(session), host)
        with db.session(self._engine) as session:
            newest = policies.current(session)
            if newest is not None and newest.number > self._policy_told:
                members.announce_policy(session, self._client, self._keyrings.current(session))
                self._policy_told = newest.number

    def prune(self) -> None:
        """Take the broker users of tokens out that can be used no more."""
        with db.session(self._engine) as session:
            members.prune_joiners(session, self._client)
