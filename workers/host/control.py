"""The control list: what is said to the worker itself, read by a thread and connection of its own.

A full pool stops reading the queue, so such words never travel through it. A message is looked at, acted upon and only
then removed; every action may be repeated without harm. The same thread looks whether a newer session of this host has
begun: then this one ends.
"""

import sqlite3
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import redis
from pydantic import ValidationError
from redis.client import NEVER_DECODE

from fleet import errors, logs, names
from fleet.clock import BrokerClock
from fleet.contracts import Risk
from fleet.contracts.control import READER, ApproveRun, CancelRun, ControlMessage, DenyRun
from fleet.security.identity import PrincipalIdentity
from workers.host.own import Own

log = logs.get(__name__)

#: How long one read waits; less than the connection's time-out, and the longest a stop or a newer session has to wait.
_BLOCK_SECONDS = 1
_RETRY = timedelta(seconds=1)
#: Messages that are read at once before the worker begins to work.
_PAGE = 200

#: Above the longest honest word: the fleet's of whose credentials count, for some 100,000 principals. In bytes.
_LARGEST = 4 * 1024 * 1024
#: Above the longest honest word of a principal: an approval with its reason and credential. As it was signed it goes
#: into a report, and to the vault (`contracts.secrets.SecretsWanted`), which take no more. In bytes.
_LARGEST_OF_PRINCIPAL = 32 * 1024

#: Acts upon one kind of `fleet.contracts.control` messages.
Handler = Callable[[Any], object]
#: Acts upon a principal's answer about a run that waits for approval; gets the item as it came, too.
Decide = Callable[[ApproveRun | DenyRun, PrincipalIdentity, str], object]


class _TooLarge(Exception):
    """A word that is longer than an honest one."""


class ControlList:
    """A thread that gives each control message to the handler of its `kind`."""

    def __init__(
        self,
        client: "redis.Redis",
        handlers: Mapping[str, Handler],
        *,
        decide: Decide,
        own: Own,
        epoch: int,
        clock: BrokerClock,
        on_superseded: Callable[[int], None],
        on_refused: Callable[[bytes, str, str], None],
        pushed_by: Callable[[str], str | None] = lambda _run: None,
        on_heard: Callable[[], None] = lambda: None,
    ) -> None:
        """`pushed_by` tells whose a run is, where that is known here; `on_heard` is called when the broker answers."""
        self._client = client
        self._handlers = handlers
        self._decide = decide
        self._own = own
        self._clock = clock
        self._key = names.control(own.host)
        self._epoch_key = names.epoch(own.host)
        self._on_refused = on_refused
        self._pushed_by = pushed_by
        self._on_heard = on_heard
        self._epoch = epoch
        self._on_superseded = on_superseded
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-list", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())

    def catch_up(self) -> None:
        """Act upon all that was said while no worker was here, before it begins to work; raises redis-py's errors."""
        command: Any = self._client.execute_command
        while items := command("LRANGE", self._key, -_PAGE, -1, **{NEVER_DECODE: True}):
            for item in reversed(items):
                self.handle(item)
                self._client.lrem(self._key, -1, item)

    def _run(self) -> None:
        command: Any = self._client.execute_command
        failing = False
        while not self._stopping.is_set():
            try:
                newest: Any = self._client.get(self._epoch_key)
                if newest is not None and int(newest) > self._epoch:
                    self._on_superseded(int(newest))
                    break
                # Moving the oldest item onto itself waits for one and leaves it where it is.
                # Foreign bytes: a client that decodes would fail on them, and end this thread.
                item = command("BLMOVE", self._key, self._key, "RIGHT", "RIGHT", _BLOCK_SECONDS, **{NEVER_DECODE: True})
                self._on_heard()
                if item is not None:
                    self.handle(item)
                    self._client.lrem(self._key, -1, item)
            except redis.RedisError as exc:
                if not failing:
                    log.warning("control.lost", error=str(exc), next="trying again until the broker is back")
                failing = True
                self._stopping.wait(_RETRY.total_seconds())
            else:
                failing = False
        self.stopped.set()

    def handle(self, item: bytes) -> None:
        """Act upon one message; one that nobody has said who may is refused, what cannot be read is dropped."""
        try:
            if len(item) > _LARGEST:
                raise errors.NotTrusted(f"{len(item):,} bytes, which are not read")
            text, principal = self._own.read_word(item)
            message = READER.validate_json(text)
            handler = self._handler(message, principal, item)
        except errors.NotTrusted as exc:
            self._refuse(item, "not_trusted", exc.message)
            return
        except errors.NotPermitted as exc:
            self._refuse(item, "not_permitted", exc.message)
            return
        except _TooLarge as exc:
            self._refuse(item, "too_large", str(exc))
            return
        except (ValidationError, KeyError) as exc:  # a newer sender says more
            log.warning("control.unread", error=repr(exc)[:500], next="the message is dropped")
            return
        try:
            handler(message)
        except sqlite3.Error as exc:
            log.warning("control.failed", kind=message.kind, error=str(exc), next="the message is dropped")
        except Exception:
            log.exception("control.failed", kind=message.kind)

    def _handler(self, message: ControlMessage, principal: PrincipalIdentity | None, item: bytes) -> Handler:
        """Return who acts upon a message, where whoever says it may."""
        if principal is not None:
            if len(item) > _LARGEST_OF_PRINCIPAL:
                raise _TooLarge(f"{len(item):,} bytes of a principal's, of which {_LARGEST_OF_PRINCIPAL:,} are read")
            self._require_right(principal, message)
        if not isinstance(message, ApproveRun | DenyRun):
            return self._handlers[message.kind]
        if principal is None:  # the control plane relays, and answers for nobody
            raise errors.NotTrusted(f"{message.kind} is for a principal to say, by its own key")
        return lambda decided: self._decide(decided, principal, item.decode())

    def _refuse(self, item: bytes, reason: str, detail: str) -> None:
        try:
            self._on_refused(item, reason, detail)
        except sqlite3.Error as exc:  # what is said next counts all the same
            log.warning("control.unreported", reason=reason, error=str(exc), next="the message is dropped")

    def _require_right(self, principal: PrincipalIdentity, message: ControlMessage) -> None:
        """Raise where a principal may not say that: it may end runs of hosts that it may push to, and answer for those
        that wait for approval, in its own name.

        One that may only look ends its own, as far as this host knows them; the control plane knows all. Whose
        approval counts is looked at where the run is (`workers.host.parking`).
        """
        objection = self._own.trust.objection(principal, now=self._clock.now())
        if objection:
            raise errors.NotTrusted(f"the credential of {principal.name} is {objection}")
        if not isinstance(message, CancelRun | ApproveRun | DenyRun) or message.by != principal.name:
            raise errors.NotPermitted(f"principal {principal.name} may not say {message.kind}")
        if not principal.may_address(self._own.identity):
            raise errors.NotPermitted(f"principal {principal.name} has nothing to say to this host")
        if (
            isinstance(message, CancelRun)
            and not principal.level.may(Risk.CHANGES)
            and self._pushed_by(message.run) != principal.name
        ):
            raise errors.NotPermitted(f"principal {principal.name} is {principal.level}, and the run another's")
