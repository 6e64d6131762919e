"""Dismissal: how a session ends that nobody on this machine has told to stop.

Another session of this host has taken over, or the host was put out of the fleet. The first lets what runs finish for a
moment; the second lets nothing of the fleet run on, and is remembered in the journal's file, so that no later start
works under the same key. The exit code tells them apart, for whoever starts workers.
"""

import os
from collections.abc import Callable
from datetime import timedelta

from celery.worker import state

from fleet import logs
from fleet.contracts.control import MembershipRevoked
from fleet.contracts.reports import Kind
from workers.host.outbox import Outbox
from workers.host.own import REVOKED, Own
from workers.host.stopping import Stopping
from workers.host.store import Store

log = logs.get(__name__)

#: What runs in a session that another has superseded gets this long to finish.
_GIVE_WAY_WITHIN = timedelta(seconds=3)


class Dismissal:
    """Ends a session that is not to go on, and says why it ends."""

    #: the session that has taken over from this one
    superseded_by: int | None = None
    #: whether the host was put out of the fleet
    _revoked = False

    def __init__(
        self, own: Own, store: Store, outbox: Outbox, stopping: Stopping, *, unlisted: bool, wake: Callable[[], None]
    ) -> None:
        """`wake` has the event loop see at once that it is to end."""
        self._own = own
        self._store = store
        self._outbox = outbox
        self._stopping = stopping
        self._unlisted = unlisted
        self._wake = wake

    def give_way(self, newer: int) -> None:
        """End, because another session of this host has begun; what runs has a moment to finish."""
        self.superseded_by = newer
        log.error("worker.superseded", epoch=newer, next="this one ends; give one of the two another --host-id")
        self._outbox.report(Kind.HOST_FENCED, {"newer": newer})
        self._stopping.begin(grace=_GIVE_WAY_WITHIN)
        state.should_stop = os.EX_TEMPFAIL  # type: ignore[assignment]  # the stubs know None only

    def leave_fleet(self, message: MembershipRevoked) -> None:
        """End at once: the host does not belong to the fleet any more, and nothing of the fleet may run on."""
        with self._store.transaction(durable=True) as transaction:
            self._store.remember(transaction, REVOKED, self._own.identity.key)
        self._revoked = True
        log.error(
            "host.revoked",
            principal=message.by,
            next="the worker ends, and does not start again without a new token",
        )
        self._stopping.begin(grace=timedelta(0))
        state.should_stop = os.EX_NOPERM  # type: ignore[assignment]  # the stubs know None only
        self._wake()

    def exit_code(self) -> int | None:
        """Return the code by which whoever starts the worker knows of it; None for a session that was not dismissed."""
        if self.superseded_by:
            return os.EX_TEMPFAIL
        return os.EX_NOPERM if self._revoked else None

    def reason(self) -> str | None:
        """Say why this session ends that nobody has told to stop."""
        if self.superseded_by:
            return "another session has taken over this host"
        return "the host was put out of the fleet" if self._revoked else None

    def reason_for_good(self) -> str | None:
        """Say why this session has ended in a way that no new start mends; None where one does.

        Of a listed host a newer session is no such end: a new start waits until that one is over. One of an unlisted
        host would take over from it, and be taken over from, in turn.
        """
        return self.reason() if self._revoked or self._unlisted else None
