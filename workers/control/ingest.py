"""Ingest: the loop that carries reports from the broker into the database.

In this order: read the tails of the lists that have news, commit them in one transaction, remove them while the lease
is still mine, acknowledge to the hosts, tell the watchers, run the errands that follow. Killed between any two of
these, the next turn (of whoever holds the lease then) reads the same items again, and the cursors make that harmless.
While database or broker is away the reports stay where they are.
"""

import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

import redis
from redis.client import NEVER_DECODE
from sqlalchemy import Engine

from fleet import db, errors, logs, names
from fleet.contracts.control import ControlMessage, ReportsAcknowledged, ReportsMissing
from workers.control import reading, recording, watchers
from workers.control.batches import Batch, Recorded
from workers.control.errands import Errands
from workers.control.gaps import Gaps
from workers.control.news import News
from workers.control.voice import Voice

log = logs.get(__name__)

#: While there was news in the last two seconds a caller is probably waiting; otherwise ten looks a second are enough.
_POLL_BUSY, _POLL_IDLE, _BUSY_FOR = 0.02, 0.1, 2.0
#: After a round that took everything, reports gather for so long: one transaction for each would leave the machine less
#: for the work that they are about.
_LINGER = 0.03
#: How long another control worker's lease is left alone before it is asked for again.
_LEASE_POLL = 0.5
_BACKOFF_FIRST, _BACKOFF_LONGEST = 0.2, 5.0
#: Reports of one sender, and of all, in one transaction: the write lock is held for about half a second at most.
_PER_SENDER, _PER_TURN = 500, 2_000
_SENDERS_PER_TURN = 100
#: The lease's own renewal may touch its key at the moment of the removal.
_REMOVAL_TRIES = 10


class Lease(Protocol):
    """The right to write the ledger. `token` is what lies at `names.CONTROL_LEASE` while it is mine."""

    token: str

    def held(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What keeps the loop from taking in reports."""

    #: how long no turn has gone through
    seconds: float
    #: a sentence for people, without anything of a report
    reason: str


class Ingest:
    """Takes in reports in a thread of its own, from `start` to `stop`, whenever the lease is held."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", lease: Lease, voice: Voice) -> None:
        self._engine = engine
        self._client = client
        self._lease = lease
        self._voice = voice
        self.news = News(engine=engine, client=client)
        self.errands = Errands(engine=engine, client=client, voice=voice)
        self._gaps = Gaps()
        self._stop = threading.Event()
        self.stopped = threading.Event()
        self._thread: threading.Thread | None = None
        #: when (monotonic) reports were last taken in
        self._news_at = 0.0
        self._backoff = 0.0
        #: since when (monotonic) no turn goes through, and why
        self._troubled: tuple[float, str] | None = None
        self._ticked_at: float | None = None

    def age(self) -> float | None:
        """Return the seconds since the loop ticked last; None before the first tick."""
        return None if self._ticked_at is None else time.monotonic() - self._ticked_at

    def trouble(self) -> Trouble | None:
        """Return what keeps it from recording; None where its last turn went through, or another one has the lease.

        It ticks all the while, because it tries again.
        """
        troubled = self._troubled
        if troubled is None or not self._lease.held():
            return None
        since, reason = troubled
        return Trouble(seconds=time.monotonic() - since, reason=reason)

    def lag(self) -> float | None:
        """Return for how long the sender that waits longest has had reports that are not taken in; 0 where none waits.

        None without the lease: another control worker takes them in.
        """
        return self.news.lag() if self._lease.held() else None

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="ingest", daemon=True)
            self._thread.start()

    def stop(self, timeout: timedelta = timedelta(seconds=15)) -> None:
        """End after the transaction in hand; may be called twice, and before `start`."""
        self._stop.set()
        if self._thread is None:
            self.stopped.set()
        else:
            self._thread.join(timeout.total_seconds())

    def step(self) -> bool:
        """Take in one round of news; return whether there was any."""
        if strangers := self.news.take_marks():
            with db.session(self._engine) as session:
                refused = recording.refuse_strangers(session, strangers)
            self.publish(refused)
        batches = self.take()
        if not batches:
            return False
        recorded = self.record(batches)
        released = self.release(batches, recorded)
        self.publish(recorded)
        if released:
            self.errands.note(recorded)
        return True

    def take(self) -> list[Batch]:
        """Read the oldest reports of those who have waited longest. Nothing is removed."""
        senders = self.news.senders(_SENDERS_PER_TURN)
        if not senders:
            return []
        limit = max(20, min(_PER_SENDER, _PER_TURN // len(senders)))
        pipeline: Any
        with self._client.pipeline(transaction=False) as pipeline:
            for sender in senders:
                # foreign bytes: a client that decodes would fail on one bad item for all senders
                pipeline.execute_command("LRANGE", names.reports(sender), -limit, -1, **{NEVER_DECODE: True})
            answers = pipeline.execute(raise_on_error=False)
        batches = []
        for sender, answer in zip(senders, answers, strict=True):
            if isinstance(answer, redis.ResponseError):
                log.warning("reports.unreadable", **_about(sender), reason=str(answer), remedy="delete the key")
            elif isinstance(answer, Exception):
                raise answer
            elif answer:
                batches.append(Batch(sender, list(reversed(answer)), more=len(answer) >= limit))
                continue
            self.news.drop(sender)
        return batches

    def record(self, batches: Sequence[Batch]) -> Recorded:
        """Commit batches in one transaction; one by one where an item among them cannot be stored."""
        try:
            with db.session(self._engine) as session:
                return recording.record(session, batches, waits_for=self._gaps.waits_for)
        except errors.FleetError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever an item does, it must not stop the others
            log.warning("reports.unprocessable", reason=_kind(exc), consequence="each is now tried alone")
            return self._record_singly(batches)

    def release(self, batches: Sequence[Batch], recorded: Recorded) -> bool:
        """Remove recorded batches and acknowledge them while the lease is mine; return whether it was."""
        said: list[tuple[str, ControlMessage]] = [
            (host, ReportsAcknowledged(epoch=epoch, seq=seq))
            for host, sessions in recorded.taken_in.items()
            for epoch, seq in sessions.items()
        ]
        said += [
            (host, ReportsMissing(epoch=epoch, seq=seq))
            for (host, epoch), seq in recorded.missing.items()
            if self._gaps.to_ask(host, epoch, seq)
        ]
        words = self._voice.words(said)
        pipeline: Any
        for _ in range(_REMOVAL_TRIES):
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.watch(names.CONTROL_LEASE)
                if pipeline.get(names.CONTROL_LEASE) not in (self._lease.token, self._lease.token.encode()):
                    break
                pipeline.multi()
                for batch in batches:
                    # Senders only ever push at the head, so the tail is still what was read. LTRIM, since RPOP
                    # would send the items once more.
                    pipeline.ltrim(names.reports(batch.sender), 0, -len(batch.items) - 1)
                for key, word in words:
                    pipeline.lpush(key, word)
                try:
                    pipeline.execute()
                except redis.WatchError:
                    continue
            self.news.settle(batches)
            return True
        log.warning("lease.lost", while_doing="ingest", consequence="its next holder reads the same reports again")
        self._forget()
        return False

    def publish(self, recorded: Recorded) -> None:
        """Tell watchers what was committed."""
        watchers.tell(self._client, recorded.events)

    def _loop(self) -> None:
        try:
            while not self._stop.is_set():
                self._ticked_at = time.monotonic()
                self._stop.wait(self._turn())
        finally:
            self.stopped.set()

    def _turn(self) -> float:
        """Do what is due; return for how many seconds nothing is."""
        if not self._lease.held():
            self._forget()
            self._troubled = None
            return _LEASE_POLL
        try:
            self.news.look()
            news = self.step()
            self.errands.run()
        except (errors.FleetError, redis.RedisError) as exc:
            return self._pause(str(exc))
        except Exception as exc:  # the loop outlives a fault of ours; reports stay where they are meanwhile
            log.exception("ingest.failed")
            return self._pause(f"a fault of Fleet's own, {_kind(exc)}: see ingest.failed in the log")
        self._troubled = None
        if self._backoff:
            self._backoff = 0.0
            log.info("ingest.resumed")
        if news:
            self._news_at = time.monotonic()
            return 0 if self.news else _LINGER
        return _POLL_BUSY if time.monotonic() - self._news_at < _BUSY_FOR else _POLL_IDLE

    def _pause(self, reason: str) -> float:
        if not self._backoff:
            log.warning("ingest.paused", reason=reason, consequence="reports wait in the broker until it works again")
        self._troubled = (self._troubled[0] if self._troubled else time.monotonic(), reason)
        self._backoff = min(self._backoff * 2 or _BACKOFF_FIRST, _BACKOFF_LONGEST)
        return self._backoff * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret

    def _record_singly(self, batches: Iterable[Batch]) -> Recorded:
        parts: list[Recorded] = []
        for batch in batches:
            for item in batch.items:
                parts += self._record_one(Batch(batch.sender, [item]))
        return Recorded.joined(parts)

    def _record_one(self, batch: Batch) -> list[Recorded]:
        """Commit a batch of one item; where it cannot be stored, each report in it alone, and then without that one."""
        try:
            with db.session(self._engine) as session:
                return [recording.record(session, [batch], waits_for=self._gaps.waits_for)]
        except errors.FleetError:
            raise
        except Exception as exc:  # noqa: BLE001 - as above
            reason = _kind(exc)
        if batch.place is None and (places := reading.places(batch.items[0])) > 1:
            return [part for place in range(places) for part in self._record_one(replace(batch, place=place))]
        log.warning("report.unprocessable", **_about(batch.sender), reason=reason)
        with db.session(self._engine) as session:
            return [recording.refuse(session, batch, "cannot be stored")]

    def _forget(self) -> None:
        self.news.forget()
        self.errands.forget()


def _about(sender: str) -> dict[str, str]:
    """Return what a line in the log about a sender says of it."""
    name = sender.removeprefix("p:")
    return {"host": name} if name == sender else {"principal": name}


def _kind(exc: Exception) -> str:
    """Say what went wrong without the report's data, which an error's text may quote."""
    cause = getattr(exc, "orig", None) or exc
    return f"{type(cause).__module__}.{type(cause).__name__}"
