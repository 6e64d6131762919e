"""Output: what runs say while they run, read from their streams in order, signed by their hosts.

A reader who is too slow, or comes late, finds only the newest of it, and is told how many lines it missed; no reader
holds a run up. While it reads it counts as a follower, and some runs end when they have none.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
from pydantic import ValidationError

from fleet import errors, logs, names
from fleet.broker.connection import connect, translated
from fleet.contracts.output import Entry
from fleet.security import signing

if TYPE_CHECKING:
    from fleet.dispatch import Dispatcher

log = logs.get(__name__)

#: How often all streams and results are looked at, whether or not the broker has told of news.
_SWEEP_SECONDS = 2.0
#: Streams that are read in one round trip, and entries of each: 4 MiB at most.
_STREAMS_AT_ONCE, _ENTRIES_AT_ONCE = 16, 16
#: A broker that goes away is waited for so long, and asked so often.
_PATIENCE_SECONDS, _RETRY_SECONDS = 30.0, 0.5


@dataclass(frozen=True)
class Said:
    """Something that a run said, see `fleet.contracts.output.Entry`."""

    run_id: str
    host: str
    attempt: int
    kind: str
    data: Mapping[str, Any]
    #: unix seconds
    at: float
    #: lines before this that the reader cannot have any more
    missed: int = 0
    #: "stdout" or "stderr", where the text goes on in a line that began before this
    within: Sequence[str] = ()


@dataclass
class _Place:
    """How far a stream has been read."""

    id: bytes = b"0-0"
    attempt: int = 0
    number: int = 0
    #: lines until here, by the host's count
    lines: int = 0
    ended: bool = False
    doubted: bool = False


class Output:
    """What runs say, to be iterated over once."""

    def __init__(
        self, dispatcher: "Dispatcher", run_ids: Iterable[str], *, follow: bool = True, timeout: float | None = None
    ) -> None:
        """Without `follow` only what is there already; else until all runs have ended.

        Iterating raises `errors.TimedOut` after `timeout` seconds, `errors.BrokerUnavailable`.
        """
        self._dispatcher = dispatcher
        self._follow = follow
        self._timeout = timeout
        self._places = {run_id: _Place() for run_id in run_ids}
        self._keys = {names.output(run_id): run_id for run_id in self._places}
        self._learned_at = float("-inf")

    def __iter__(self) -> Iterator[Said]:
        if not self._places:
            return
        # Foreign bytes: a client that decodes would fail on them.
        client = connect(self._dispatcher.broker, name="output", connections=2, retries=1, decodes=False)
        ends = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            with translated(self._dispatcher.broker):
                if self._follow:
                    yield from self._patiently(client, ends)
                else:
                    yield from self._read(client, list(self._places))
        finally:
            client.close()

    def _patiently(self, client: "redis.Redis", ends: float | None) -> Iterator[Said]:
        """Follow, through restarts of the broker."""
        gone_at: float | None = None
        while True:
            try:
                for said in self._followed(client, ends):
                    gone_at = None
                    if said is not None:
                        yield said
            except (redis.ConnectionError, redis.TimeoutError):
                gone_at = gone_at or time.monotonic()
                if time.monotonic() - gone_at > _PATIENCE_SECONDS:
                    raise
                threading.Event().wait(_RETRY_SECONDS)
            else:
                return

    def _followed(self, client: Any, ends: float | None) -> Iterator[Said | None]:
        """Follow on one connection; None says that the broker answers."""
        with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(*self._keys, *(names.result(run_id) for run_id in self._unended()))
            while waiting := self._unended():
                for run_id in self._ended(client, waiting):
                    # The host writes a result after the last word: now all is there.
                    yield from self._read(client, [run_id])
                    self._places[run_id].ended = True
                yield from self._read(client, self._unended())
                yield None
                yield from self._until_sweep(client, pubsub, ends)

    def _until_sweep(self, client: "redis.Redis", pubsub: Any, ends: float | None) -> Iterator[Said]:
        """Read streams as soon as they grow, until it is time to look at all of them, or a result has come."""
        sweep_at = time.monotonic() + _SWEEP_SECONDS
        while self._unended() and (left := sweep_at - time.monotonic()) > 0:
            if ends is not None and time.monotonic() >= ends:
                raise errors.TimedOut("the output goes on", remedy="the task goes on; see `fleet task logs`")
            grown, is_result = set(), False
            message = pubsub.get_message(timeout=left)
            while message:
                key = message["channel"].decode()
                is_result = is_result or key not in self._keys
                grown.add(self._keys.get(key, ""))
                message = pubsub.get_message(timeout=0)
            if is_result:
                return
            yield from self._read(client, [run_id for run_id in self._unended() if run_id in grown])

    def _unended(self) -> list[str]:
        return [run_id for run_id, place in self._places.items() if not place.ended]

    @staticmethod
    def _ended(client: "redis.Redis", run_ids: Sequence[str]) -> list[str]:
        """Return the runs whose results are there."""
        found: Any = client.mget([names.result(run_id) for run_id in run_ids])
        return [run_id for run_id, result in zip(run_ids, found, strict=True) if result is not None]

    def _read(self, client: "redis.Redis", run_ids: Sequence[str]) -> Iterator[Said]:
        """Read what these streams hold beyond what was read of them."""
        left = list(run_ids)
        while left:
            part, left = left[:_STREAMS_AT_ONCE], left[_STREAMS_AT_ONCE:]
            wanted: Any = {names.output(run_id): self._places[run_id].id for run_id in part}
            answer: Any = client.xread(wanted, count=_ENTRIES_AT_ONCE)
            for key, entries in answer:
                run_id = self._keys[key.decode()]
                for entry_id, fields in entries:
                    self._places[run_id].id = entry_id
                    if said := self._said(run_id, fields):
                        yield said
                if len(entries) == _ENTRIES_AT_ONCE:
                    left.append(run_id)

    def _said(self, run_id: str, fields: Mapping[bytes, bytes]) -> Said | None:
        """Return an entry that is the host's word, and new; what is not is left out, and the entries after it count."""
        place = self._places[run_id]
        try:
            entry = Entry.model_validate_json(self._checked(run_id, fields))
        except (errors.NotTrusted, ValidationError) as exc:
            if not place.doubted:
                place.doubted = True
                log.warning(
                    "output.refused", run=run_id, error=str(exc), next="what is not its host's word is left out"
                )
            return None
        if (entry.attempt, entry.number) <= (place.attempt, place.number):
            return None
        lines_until_here = place.lines if entry.attempt == place.attempt else 0
        place.attempt, place.number, place.lines = entry.attempt, entry.number, entry.before + entry.lines
        return Said(
            run_id=run_id,
            host=names.host_of_run(run_id),
            attempt=entry.attempt,
            kind=entry.kind,
            data=entry.data,
            at=entry.at,
            missed=max(0, entry.before - lines_until_here),
            within=entry.within,
        )

    def _checked(self, run_id: str, fields: Mapping[bytes, bytes]) -> str:
        signer = self._dispatcher.signer
        texts = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
        with suppress(errors.NotTrusted):
            return signing.check_output(texts, run_id, trust=signer.trust)
        # The fleet may have changed its key meanwhile, and with it what hosts are vouched for by.
        if time.monotonic() - self._learned_at > _SWEEP_SECONDS:
            self._learned_at = time.monotonic()
            statement: Any = self._dispatcher.redis.get(names.TRUST)
            signer.learn(statement=statement, credential=None)
        return signing.check_output(texts, run_id, trust=signer.trust)
