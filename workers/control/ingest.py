"""Ingest: the loop that carries reports from the broker into the database.

In this order: read the tails of the lists that have news, commit them in one transaction, remove them while the lease
is still mine, acknowledge to the hosts, tell the watchers, attend to runs that need something in the broker. Killed
between any two of these, the next turn (of whoever holds the lease then) reads the same items again, and the cursors
make that harmless. While database or broker is away the reports stay where they are. Which lists have news says
`fleet:reports:dirty`; marks that were taken by somebody who died are made good by a look at every list, in full when
the lease is gained and at the known senders' every 30 s.
"""

import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol

import redis
from redis.client import NEVER_DECODE
from sqlalchemy import Engine

from fleet import db, errors, logs, names
from fleet.contracts.control import ControlMessage, ReportsAcknowledged, ReportsMissing
from fleet.contracts.secrets import ASKED_FOR_SECONDS, SecretsWanted
from workers.control import reading, recording, watchers
from workers.control.attending import Attending
from workers.control.gaps import Gaps
from workers.control.recording import Batch, Recorded
from workers.control.voice import Voice

log = logs.get(__name__)

SWEEP_INTERVAL = timedelta(seconds=30)
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
#: Questions for secrets that wait at once; whoever is not among them asks again.
_MOST_WANTED = 1_000
_MARKS = 1_000
#: The lease's own renewal may touch its key at the moment of the removal.
_REMOVAL_TRIES = 10


class Lease(Protocol):
    """The right to write the ledger. `token` is what lies at `names.CONTROL_LEASE` while it is mine."""

    token: str

    def held(self) -> bool: ...


class Ingest:
    """Takes in reports in a thread of its own, from `start` to `stop`, whenever the lease is held."""

    def __init__(
        self,
        *,
        engine: Engine,
        client: "redis.Redis",
        lease: Lease,
        voice: Voice,
        sweep_interval: timedelta = SWEEP_INTERVAL,
    ) -> None:
        self._engine = engine
        self._client = client
        self._lease = lease
        self._voice = voice
        self._attending = Attending(engine=engine, client=client, voice=voice)
        self._sweep_interval = sweep_interval.total_seconds()
        self._gaps = Gaps()
        self._stop = threading.Event()
        self.stopped = threading.Event()
        self._thread: threading.Thread | None = None
        #: senders with news, whoever waits longest first (a dict keeps the order)
        self._pending: dict[str, None] = {}
        #: monotonic times; None: all lists have to be looked at
        self._swept_at: float | None = None
        self._news_at = 0.0
        #: runs that something in the broker is to be done for
        self._unattended: set[str] = set()
        #: hosts whose key or password has changed
        self._changed: set[str] = set()
        #: runs whose hosts wait for secrets, and since when (monotonic)
        self._wanted: dict[tuple[str, str], tuple[SecretsWanted, float]] = {}
        self._backoff = 0.0

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
        self._collect_marks()
        batches = self.take()
        if not batches:
            return False
        recorded = self.record(batches)
        released = self.release(batches, recorded)
        self.publish(recorded)
        if released:
            self._unattended |= recorded.unattended
            self._changed |= recorded.changed
            asked = islice(recorded.wanted.items(), max(0, _MOST_WANTED - len(self._wanted)))
            self._wanted |= {run: (wanted, time.monotonic()) for run, wanted in asked}
        return True

    def take(self) -> list[Batch]:
        """Read the oldest reports of those who have waited longest. Nothing is removed."""
        senders = list(islice(self._pending, _SENDERS_PER_TURN))
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
                log.warning("reports.unreadable", sender=sender, reason=str(answer), remedy="delete the key")
            elif isinstance(answer, Exception):
                raise answer
            elif answer:
                batches.append(Batch(sender, list(reversed(answer)), more=len(answer) >= limit))
                continue
            del self._pending[sender]
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
            self._settle(batches)
            return True
        log.warning("lease.lost", while_doing="ingest", consequence="its next holder reads the same reports again")
        self._forget()
        return False

    def publish(self, recorded: Recorded) -> None:
        """Tell watchers what was committed."""
        watchers.tell(self._client, recorded.events)

    def attend(self) -> None:
        """Do in the broker what was recorded for it to be done; tried again until it works."""
        if self._unattended:
            self._attending.attend(self._unattended)
            self._unattended.clear()
        for host in sorted(self._changed):
            self._voice.announce(host, self._client)
            self._changed.discard(host)
        for (host, run), (wanted, since) in list(self._wanted.items()):
            if self._voice.issue(host, run, wanted, self._client) or time.monotonic() - since > ASKED_FOR_SECONDS:
                del self._wanted[(host, run)]

    def sweep(self) -> None:
        """Look at every known sender's list, for marks that were lost."""
        with db.session(self._engine, write=False) as session:
            senders = sorted(recording.known_senders(session))
        for begin in range(0, len(senders), _MARKS):
            part = senders[begin : begin + _MARKS]
            with self._client.pipeline(transaction=False) as pipeline:
                for sender in part:
                    pipeline.llen(names.reports(sender))
                answers = pipeline.execute(raise_on_error=False)
            self._add(
                sender for sender, length in zip(part, answers, strict=True) if isinstance(length, int) and length
            )
        self._swept_at = time.monotonic()

    def scan(self) -> None:
        """Look for every report list there is, also of senders that were never heard of."""
        prefix = names.reports("")
        keys = self._client.scan_iter(match=f"{prefix}*", count=1_000, _type="list")
        found = (key.decode("utf-8", "replace") if isinstance(key, bytes) else key for key in keys)
        self._add(sender for sender in (key.removeprefix(prefix) for key in found) if names.is_sender(sender))
        self._swept_at = time.monotonic()

    def _loop(self) -> None:
        try:
            while not self._stop.is_set():
                self._stop.wait(self._turn())
        finally:
            self.stopped.set()

    def _turn(self) -> float:
        """Do what is due; return for how many seconds nothing is."""
        if not self._lease.held():
            self._forget()
            return _LEASE_POLL
        try:
            if self._swept_at is None:
                self.scan()
            elif time.monotonic() - self._swept_at > self._sweep_interval:
                self.sweep()
            news = self.step()
            self.attend()
        except (errors.FleetError, redis.RedisError) as exc:
            return self._pause(str(exc))
        except Exception as exc:  # the loop outlives a fault of ours; reports stay where they are meanwhile
            log.exception("ingest.failed")
            return self._pause(repr(exc))
        if self._backoff:
            self._backoff = 0.0
            log.info("ingest.resumed")
        if news:
            self._news_at = time.monotonic()
            return 0 if self._pending else _LINGER
        return _POLL_BUSY if time.monotonic() - self._news_at < _BUSY_FOR else _POLL_IDLE

    def _pause(self, reason: str) -> float:
        if not self._backoff:
            log.warning("ingest.paused", reason=reason, consequence="reports wait in the broker until it works again")
        self._backoff = min(self._backoff * 2 or _BACKOFF_FIRST, _BACKOFF_LONGEST)
        return self._backoff * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret

    def _collect_marks(self) -> None:
        if len(self._pending) >= _MARKS:
            return
        command: Any = self._client.execute_command
        marks = command("SPOP", names.REPORTS_DIRTY, _MARKS, **{NEVER_DECODE: True}) or ()
        senders = {mark: mark.decode("utf-8", "replace") for mark in marks}
        self._add(sender for sender in senders.values() if names.is_sender(sender))
        if strangers := [mark for mark, sender in senders.items() if not names.is_sender(sender)]:
            with db.session(self._engine) as session:
                recorded = recording.refuse_strangers(session, strangers)
            self.publish(recorded)

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
        log.warning("report.unprocessable", sender=batch.sender, reason=reason)
        with db.session(self._engine) as session:
            return [recording.refuse(session, batch, "cannot be stored")]

    def _settle(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._pending.pop(batch.sender, None)
            if batch.more:
                self._pending[batch.sender] = None  # at the end of the line

    def _add(self, senders: Iterable[str]) -> None:
        self._pending.update(dict.fromkeys(senders))

    def _forget(self) -> None:
        self._pending.clear()
        self._changed.clear()
        self._wanted.clear()  # whoever wants something asks again
        self._unattended.clear()  # the next holder's rescue begins with it
        self._swept_at = None


def _kind(exc: Exception) -> str:
    """Say what went wrong without the report's data, which an error's text may quote."""
    cause = getattr(exc, "orig", None) or exc
    return f"{type(cause).__module__}.{type(cause).__name__}"
