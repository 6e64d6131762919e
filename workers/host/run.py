"""A run as Fleet's own performers see it: who asked, how to say how far it is, and when it is to end."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from workers.host.replies import PROGRESS_INTERVAL_SECONDS
from workers.host.stream import Stream

#: How long the last output has to reach the broker before the run's end is written down; it is sent on after that.
_LAST_WORDS_SECONDS = 3.0
#: How often a run that says something patiently looks whether it is to end.
_LOOK_SECONDS = 0.5


class HasDocker(Protocol):
    @property
    def docker(self) -> Any: ...


@dataclass
class Run:
    """One attempt at a run; fulfils `fleet.contracts.RunContext` and `workers.host.streams.StreamedRun`."""

    run_id: str
    host: str
    attempt: int
    description: str
    metadata: Mapping[str, Any]
    submitted_by: str
    _report: Callable[[str, float | None], None]
    _engine: HasDocker
    _open_stream: Callable[[str, int], Stream]
    _progressed_at: float = field(default=float("-inf"))
    _stream: Stream | None = None
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    #: what ends a call that waits
    _closes: list[Callable[[], None]] = field(default_factory=list)

    @property
    def docker(self) -> Any:
        return self._engine.docker

    def progress(self, step: str, percent: float | None = None) -> None:
        now = time.monotonic()
        if now - self._progressed_at >= PROGRESS_INTERVAL_SECONDS:
            self._progressed_at = now
            self._report(step, percent)

    def write(self, kind: str, data: Mapping[str, Any]) -> None:
        self._output().write(kind, data)

    def say(self, name: str, text: str, *, patiently: bool = False) -> None:
        stream = self._output()
        while patiently and not self.ended() and not stream.wait_for_room(_LOOK_SECONDS):
            continue
        stream.say(name, text)

    def wait_for_room(self, seconds: float) -> bool:
        """Wait until more can be said without anything being dropped, so long at most; return whether it can."""
        return self._output().wait_for_room(seconds)

    def miss(self, lines: int, within: Mapping[str, bool]) -> None:
        """Say that so many lines are missing here, and whether they left a stream within a line."""
        self._output().miss(lines, within)

    def ended(self) -> bool:
        return self._ended.is_set()

    def pause(self, seconds: float) -> bool:
        return self._ended.wait(seconds)

    def unfollowed(self) -> bool:
        return self._output().unfollowed

    @contextmanager
    def interruptible(self, close: Callable[[], None], *, followed: bool = False) -> Iterator[None]:
        called = threading.Lock()

        def close_once() -> None:
            if called.acquire(blocking=False):
                close()

        with self._lock:
            self._closes.append(close_once)
        if self.ended():
            close_once()
        if followed:
            self._output().when_unfollowed(close_once)
        try:
            yield
        finally:
            called.acquire(blocking=False)  # what comes later finds nothing to end
            with self._lock:
                self._closes.remove(close_once)

    def end(self) -> None:
        """Have the performer end, and whatever call it waits in."""
        self._ended.set()
        with self._lock:
            closes = list(self._closes)
        for close in closes:
            close()

    def close(self) -> None:
        """Send the rest of the output; nothing is said after that."""
        if self._stream is not None:
            self._stream.close(_LAST_WORDS_SECONDS)

    def _output(self) -> Stream:
        if self._stream is None:
            self._stream = self._open_stream(self.run_id, self.attempt)
        return self._stream
