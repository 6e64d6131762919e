"""Callers: whose request it is, and the connection by which that principal pushes.

The key of a principal is in memory while its programs ask, and a few minutes longer; not at all once its token is shown
and counts no more. Who shows wrong tokens again and
again is told to wait; guessing is hopeless with 256 random bits, but somebody's program runs wild.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from fleet import bearer, clock, errors, logs
from fleet.api.plane import Plane
from fleet.bearer import Bearer
from fleet.client import Fleet
from fleet.keyring import Keyring
from fleet.models import BearerToken

log = logs.get(__name__)

#: Principals whose connections are kept while nobody uses them; each has a handful.
_MOST_KEPT = 32
KEPT_FOR = timedelta(minutes=5)
_NOTED_EVERY_SECONDS = 60.0
#: Wrong tokens of one address within a minute; and addresses that are remembered.
_MOST_WRONG, _WRONG_WITHIN_SECONDS, _MOST_ADDRESSES = 30, 60.0, 4096


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and by what."""

    bearer: Bearer
    fleet: Fleet
    #: what the request is about, for its line of log: see `asks_about`
    subject: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.bearer.principal

    def asks_about(self, **subject: str) -> None:
        """Note host, run or batch that this request is about: names that are checked or on record, never a text."""
        self.subject.update(subject)


@dataclass
class _Kept:
    fleet: Fleet
    #: what the connection was made for, keys of principal and fleet; with another it does not work
    keys: tuple[str, ...]
    used_at: float
    #: requests that use it now
    users: int = 0
    #: is not lent any more; whoever uses it last closes it
    is_gone: bool = False


class TooManyWrong(errors.Unauthenticated):
    """So many wrong tokens came from one address that somebody should look why."""

    code = "too_many_wrong_tokens"


class Callers:
    """Who is known by which token; thread-safe."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        #: when the use of a token was written down last, or that was tried
        self._noted: dict[str, float] = {}

    @contextmanager
    def known(self, token: str | None, *, address: str) -> Iterator[Caller]:
        """Give who shows this token, for one request.

        Raises `errors.Unauthenticated`, `TooManyWrong`, `errors.DatabaseUnavailable`.

        `address` is where the request comes from: wrong tokens are counted by it, right ones are never refused for it.
        """
        if token is None:
            raise errors.Unauthenticated(
                "no bearer token",
                remedy="send the header Authorization: Bearer TOKEN; `fleet principal token` makes one",
            )
        try:
            found, ring = self._read(token)
        except bearer.Ended:
            self._let_go(ended=bearer.id_of(token))
            raise
        except errors.Unauthenticated:
            self._count_wrong(address)
            raise
        kept = self._lend(found, ring)
        try:
            yield Caller(bearer=found, fleet=kept.fleet)
        finally:
            self._take_back(kept)

    def sweep(self) -> None:
        """Close what nobody has used lately: call it now and then, nobody may ask for long."""
        self._let_go()

    def close(self) -> None:
        with self._lock:
            kept, self._kept = list(self._kept.values()), OrderedDict()
        for each in kept:
            each.fleet.close()

    def _read(self, token: str) -> tuple[Bearer, Keyring]:
        settings = self._plane.settings
        with self._plane.read() as session:
            ring = self._plane.ring(session)
            found = bearer.read(
                session,
                ring,
                token,
                broker_url=settings.require_broker_url(),
                broker_ca=settings.resolved_broker_ca,
            )
            row = session.get_one(BearerToken, found.token_id)
            is_due = bearer.is_use_to_be_noted(row)
        if is_due:
            self._note_use(found.token_id)
        return found, ring

    def _note_use(self, token_id: str) -> None:
        """Write down that a token was used, unless somebody has just tried to: no request fails for it."""
        now = clock.elapsed()
        with self._lock:
            self._noted = {each: at for each, at in self._noted.items() if now - at < _NOTED_EVERY_SECONDS}
            if token_id in self._noted:
                return
            self._noted[token_id] = now
        try:
            with self._plane.write() as session:
                session.get_one(BearerToken, token_id).used_at = clock.now()
        except errors.DatabaseUnavailable as exc:
            log.warning(
                "bearer_token.unnoted", token=token_id, error=str(exc), consequence="its last use is not listed"
            )

    def _lend(self, found: Bearer, ring: Keyring) -> _Kept:
        """Return the connection of this principal, for one more request."""
        keys = (found.credential.private_key.get_secret_value(), *(key.public for key in ring.keys))
        with self._lock:
            kept = self._kept.pop(found.token_id, None)
            former = None if kept is None or kept.keys == keys else kept
            if kept is None or former:
                # A file lets its principal read the registry; a token shows what the API answers, and no more.
                fleet = Fleet(self._plane.settings, credential=found.credential, in_sight_only=True)
                kept = _Kept(fleet, keys, clock.elapsed())
            kept.users += 1
            self._kept[found.token_id] = kept
            if former:
                former.is_gone = True
        if former and not former.users:
            former.fleet.close()
        return kept

    def _take_back(self, kept: _Kept) -> None:
        with self._lock:
            kept.users -= 1
            kept.used_at = clock.elapsed()
            is_last = kept.is_gone and not kept.users
        if is_last:
            kept.fleet.close()
        self._let_go()

    def _let_go(self, *, ended: str | None = None) -> None:
        """Close connections that nobody uses, of a token that has ended, or that are old or too many."""
        now, gone = clock.elapsed(), []
        with self._lock:
            surplus = len(self._kept) - _MOST_KEPT
            for token_id, kept in list(self._kept.items()):
                is_ended = token_id == ended
                if not is_ended and (kept.users or (surplus <= 0 and now - kept.used_at <= KEPT_FOR.total_seconds())):
                    continue
                del self._kept[token_id]
                surplus -= 1
                kept.is_gone = True
                if not kept.users:
                    gone.append(kept)
        for each in gone:
            each.fleet.close()

    def _count_wrong(self, address: str) -> None:
        """Note a wrong token; raise `TooManyWrong` where there were many."""
        now = clock.elapsed()
        with self._lock:
            times = [each for each in self._wrong.pop(address, []) if now - each < _WRONG_WITHIN_SECONDS]
            times = [*times, now][-_MOST_WRONG - 1 :]
            self._wrong[address] = times
            while len(self._wrong) > _MOST_ADDRESSES:
                self._wrong.popitem(last=False)
        if len(times) > _MOST_WRONG:
            raise TooManyWrong("too many wrong bearer tokens from this address", remedy="wait a minute")
