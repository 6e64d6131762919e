"""Running: which runs this session has in hand, and how each of them is ended.

A run is in hand from the moment the pool is given it; from its claim on it can be ended. A request that comes in
between is kept, and takes effect at the claim.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fleet.contracts.control import CancelRun
from workers.host.claim import Claim


class Why(Enum):
    """Why a run is to end before it is done."""

    CANCELLED = "cancelled"
    #: the worker stops
    STOPPED = "stopped"


@dataclass(frozen=True)
class EndRequest:
    why: Why
    #: who asked, where somebody did
    cancel: CancelRun | None = None


#: Ends one run; called at most once for each request, from any thread, and returns soon.
End = Callable[[EndRequest], None]


class Running:
    """The runs in hand. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: run id → how it is ended; None before its claim
        self._runs: dict[str, End | None] = {}
        #: claims that were made with the acceptance
        self._claims: dict[str, Claim] = {}
        self._requested: dict[str, EndRequest] = {}
        #: runs beside the pool, which end when the worker begins to stop
        self._attached: set[str] = set()
        #: why those that begin now end at once
        self._ends_attached: EndRequest | None = None
        #: called whenever a run has left, to have the event loop look for the next one
        self.on_leave: Callable[[], Any] = _nothing

    def enter(self, run_id: str, claim: Claim | None = None) -> None:
        """Take note of a run that the pool is given, with its claim where it has one already."""
        with self._changed:
            self._runs.setdefault(run_id, None)
            if claim:
                self._claims[run_id] = claim

    def claim(self, run_id: str) -> Claim | None:
        """Return the claim that a run was entered with, once."""
        with self._changed:
            return self._claims.pop(run_id, None)

    def begin(self, run_id: str, end: End, *, attached: bool = False) -> None:
        """Say how a claimed run is ended; if that was asked for already, it is ended now."""
        with self._changed:
            self._runs[run_id] = end
            if attached:
                self._attached.add(run_id)
                if self._ends_attached:
                    self._requested.setdefault(run_id, self._ends_attached)
            requested = self._requested.get(run_id)
        if requested:
            end(requested)

    def leave(self, run_id: str) -> None:
        with self._changed:
            self._runs.pop(run_id, None)
            self._requested.pop(run_id, None)
            self._claims.pop(run_id, None)
            self._attached.discard(run_id)
            self._changed.notify_all()
        self.on_leave()

    def end(self, run_id: str, request: EndRequest) -> bool:
        """Have one run ended; return whether it is in hand."""
        with self._changed:
            if run_id not in self._runs:
                return False
            self._requested.setdefault(run_id, request)
            end = self._runs[run_id]
        if end:
            end(request)
        return True

    def end_all(self, request: EndRequest) -> None:
        for run_id in self.ids():
            self.end(run_id, request)

    def end_attached(self, request: EndRequest) -> None:
        """Have the runs beside the pool ended, those that come later as well."""
        with self._changed:
            self._ends_attached = request
            attached = list(self._attached)
        for run_id in attached:
            self.end(run_id, request)

    def requested(self, run_id: str) -> EndRequest | None:
        """Return the first request to end this run."""
        with self._changed:
            return self._requested.get(run_id)

    def ids(self) -> list[str]:
        with self._changed:
            return list(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing is in hand; return whether that came within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._runs, timeout)


def _nothing() -> None:
    """Be called before anybody is interested."""
