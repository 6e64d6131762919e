"""Streams: what runs say while they run, handed to the broker by one thread that never holds a run up.

A run leaves what it says here and goes on. What comes faster than it may be sent, or while the broker is away, is
dropped, the oldest first; every entry tells how many lines there were before it, so a reader sees what is missing.

The broker says of each word on a stream's channel how many hear it. A stream that nobody has followed for 30 s is
`unfollowed`; whoever wants to know asks, and whoever works for a follower only is told.

The stream of a run that has ended stays for a minute, for readers who are late, and those of a host for no longer than
they take 64 MiB together: many short runs that say much would fill the broker.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Any, Protocol

import redis

from fleet import logs, names
from fleet.clock import BrokerClock
from fleet.contracts import Reply, RunContext
from fleet.contracts.output import ENDED_TTL_SECONDS, MOST_ENDED_BYTES, MOST_ENTRIES, TTL_SECONDS
from workers.host.own import Own
from workers.host.stream import Stream

log = logs.get(__name__)

#: How long what is said waits for company: an entry costs a signature.
_GATHER_SECONDS = 0.1
#: How often it is asked who follows where nothing is said.
_ASK_SECONDS = 5.0
_RETRY_SECONDS = 0.5
#: Streams of runs that have ended, with something left to send.
_MOST_CLOSED = 64


class StreamedRun(RunContext, Protocol):
    """What Fleet's own performers are told of their run beside what those of packages are."""

    def write(self, kind: str, data: Mapping[str, Any]) -> None:
        """Put an entry into the run's output; never waits. Raises ValueError for one that is too large."""

    def say(self, name: str, text: str, *, patiently: bool = False) -> None:
        """Put text into the run's output, of the stream "stdout" or "stderr", going on where the former left off.

        Too much at once is dropped, unless it is said `patiently`: that waits until there is room, or the run ends.
        """

    def ended(self) -> bool:
        """Return whether the run is to end: it was cancelled, its time is over, or the worker stops."""

    def pause(self, seconds: float) -> bool:
        """Wait, and return whether the run is to end, as soon as it is."""

    def unfollowed(self) -> bool:
        """Return whether nobody has followed the output for 30 s."""

    def interruptible(self, close: Callable[[], None], *, followed: bool = False) -> AbstractContextManager[None]:
        """Have `close` called from another thread, at most once, if the run is to end within the block.

        With `followed` also when it is `unfollowed`.
        """


#: A function that carries out one of Fleet's own contracts.
OwnPerformer = Callable[[Any, StreamedRun], Reply]


class Streams:
    """The streams of a worker session, and the thread that sends them."""

    def __init__(self, client: "redis.Redis", own: Own, *, clock: BrokerClock) -> None:
        self._client = client
        self._own = own
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: list[Stream] = []
        #: keys of streams of ended runs → until when the broker has them (monotonic), and their bytes; the oldest first
        self._ended: dict[str, tuple[float, int]] = {}
        self._news = threading.Event()
        #: set when somebody waits until all is sent
        self._urgent = threading.Event()
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        """Try once more to send what was said, then stop; the rest is lost, and so are its readers' gaps."""
        self._stopping.set()
        self._hurry()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())
        else:
            self.stopped.set()

    def open(self, run_id: str, attempt: int) -> Stream:
        """Return a new stream of an attempt at a run."""
        stream = Stream(run_id, attempt, wake=self._news.set, hurry=self._hurry, now=self._clock.now)
        with self._lock:
            self._streams.append(stream)
        self._news.set()
        return stream

    def _hurry(self) -> None:
        self._urgent.set()
        self._news.set()

    def _run(self) -> None:
        failing = False
        while True:
            self._news.wait(_ASK_SECONDS if self._open() else None)
            self._urgent.wait(_GATHER_SECONDS)
            self._urgent.clear()
            self._news.clear()
            last_try = self._stopping.is_set()
            try:
                more = self._send()
            except redis.RedisError as exc:
                if not failing:
                    log.warning("output.delayed", error=str(exc), next="what runs say waits, the newest of it")
                failing = more = True
                self._stopping.wait(_RETRY_SECONDS)
            else:
                if failing:
                    log.info("output.resumed")
                self._look_after(regained=failing)
                failing = False
            if last_try:
                break
            if more:
                self._news.set()
        self.stopped.set()

    def _send(self) -> bool:
        """Send what is due, and ask who follows; return whether more waits."""
        now = time.monotonic()
        streams = [stream for stream in self._open() if stream.prepare(now) or stream.asked_at <= now - _ASK_SECONDS]
        pipe: Any
        with self._client.pipeline(transaction=False) as pipe:
            for stream in streams:
                key = names.output(stream.run_id)
                for number, text in stream.prepared:
                    fields = self._own.sign_output(stream.run_id, text)
                    stream.held.append(sum(len(value.encode()) for value in fields.values()))
                    pipe.xadd(key, fields, id=f"{stream.attempt}-{number}", maxlen=MOST_ENTRIES, approximate=False)
                if stream.prepared:
                    pipe.expire(key, TTL_SECONDS)
                pipe.publish(key, stream.number)
            answers = iter(pipe.execute(raise_on_error=False) if streams else ())
        for stream in streams:
            added = [next(answers) for _ in stream.prepared]
            told = [next(answers) for _ in range(2 if added else 1)]
            for answer in (*added, *told):
                # An entry whose number is taken was sent before: only the answer to that was lost.
                if isinstance(answer, redis.RedisError) and type(answer) is not redis.ResponseError:
                    raise answer
            stream.sent(now, followers=told[-1])
        self._let_go(now)
        return any(stream.waits() for stream in self._open())

    def _let_go(self, now: float) -> None:
        """Let go of streams that are over, and have the broker do so soon."""
        closed = [stream for stream in self._open() if stream.closed]
        late = [stream for stream in closed if stream.waits()][:-_MOST_CLOSED]
        over = [stream for stream in closed if not stream.waits()] + late
        if not over:
            return
        ended = {key: (until, size) for key, (until, size) in self._ended.items() if until > now}
        for stream in over:
            _until, before = ended.pop(names.output(stream.run_id), (now, 0))  # by the attempt before
            ended[names.output(stream.run_id)] = (now + ENDED_TTL_SECONDS, before + sum(stream.held))
        going_on = {names.output(stream.run_id) for stream in self._open() if not stream.closed}
        with self._client.pipeline(transaction=False) as pipe:
            for stream in over:
                pipe.expire(names.output(stream.run_id), ENDED_TTL_SECONDS)
            taken = sum(size for _until, size in ended.values())
            for key in [key for key in ended if key not in going_on]:
                if taken <= MOST_ENDED_BYTES:
                    break
                taken -= ended.pop(key)[1]
                pipe.expire(key, 0)
            pipe.execute()
        self._ended = ended
        with self._lock:
            self._streams = [stream for stream in self._streams if stream not in over]

    def _look_after(self, *, regained: bool) -> None:
        """Tell streams that nobody follows, and let go of the connection where there are none."""
        for stream in self._open():
            if regained:
                stream.follow_anew()  # who followed has to find the broker again, too
            stream.look_for_followers()
        with self._lock:
            if not self._streams:
                with suppress(redis.RedisError):
                    self._client.connection_pool.disconnect()

    def _open(self) -> list[Stream]:
        with self._lock:
            return list(self._streams)
