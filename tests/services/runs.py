"""A run's context that keeps what it is told: for performers that are called without a worker around them."""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class KeptRun:
    """Fulfils `workers.host.streams.StreamedRun`."""

    docker: Any = None
    run_id: str = "edge:1"
    host: str = "edge"
    attempt: int = 1
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    submitted_by: str = "tester"
    steps: list[tuple[str, float | None]] = field(default_factory=list)
    entries: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    pieces: list[tuple[str, str]] = field(default_factory=list)
    #: whether all that was said was said patiently
    patient: bool = True
    #: when followers are to be gone: after so many pauses
    pauses: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _unfollowed: bool = False
    _close: Callable[[], None] | None = None
    _closes_unfollowed: bool = False

    def progress(self, step: str, percent: float | None = None) -> None:
        self.steps.append((step, percent))

    def write(self, kind: str, data: Mapping[str, Any]) -> None:
        self.entries.append((kind, data))

    def say(self, name: str, text: str, *, patiently: bool = False) -> None:
        self.pieces.append((name, text))
        self.patient = self.patient and patiently

    def ended(self) -> bool:
        return self._ended.is_set()

    def pause(self, seconds: float) -> bool:
        self.pauses += 1
        return self._ended.wait(seconds)

    def unfollowed(self) -> bool:
        return self._unfollowed

    @contextmanager
    def interruptible(self, close: Callable[[], None], *, followed: bool = False) -> Iterator[None]:
        self._close, self._closes_unfollowed = close, followed
        yield
        self._close = None

    def end(self) -> None:
        """End it, as a cancel does."""
        self._ended.set()
        if self._close:
            self._close()

    def leave_alone(self) -> None:
        """Have nobody follow it."""
        self._unfollowed = True
        if self._close and self._closes_unfollowed:
            self._close()

    def text(self, name: str | None = None) -> str:
        return "".join(text for said, text in self.pieces if name in (None, said))


_NUMBERS = itertools.count(1)


@dataclass
class FakeRun(KeptRun):
    """One of many, each with an id of its own, that is over when a test says so."""

    run_id: str = field(default_factory=lambda: f"edge:01900000-0000-7000-9000-{next(_NUMBERS):012}")
    over: bool = False
    #: the step with which it is over
    over_after: str = ""

    def progress(self, step: str, percent: float | None = None) -> None:
        super().progress(step, percent)
        self.over = self.over or step == self.over_after

    def ended(self) -> bool:
        return self.over or super().ended()
