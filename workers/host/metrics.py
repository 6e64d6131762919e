"""Metrics of a host worker: numbers of this host alone, for Prometheus, beside its health.

They come from memory and from the journal, which is asked every five seconds at most, however often somebody looks; the
broker is asked nothing. prometheus_client is imported when somebody looks for the first time.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fleet.contracts import registry
from fleet.contracts.presence import Heartbeat
from fleet.health import Health, Question

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from fleet.local.pages import Page

_FRESH_SECONDS = 5.0


class Journal(Protocol):
    def unfinished_by_contract(self) -> Mapping[tuple[str, str], tuple[int, float]]: ...


class Outbox(Protocol):
    def backlog(self) -> int: ...
    def unacknowledged(self) -> int: ...


class Clock(Protocol):
    def now(self) -> float: ...


class Pulse(Protocol):
    def age(self) -> float | None: ...
    def heard_age(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the numbers of a session come from."""

    journal: Journal
    outbox: Outbox
    pulse: Pulse
    clock: Clock
    #: tasks that the pool holds
    in_hand: Callable[[], int]
    #: None before the first
    heartbeat: Callable[[], Heartbeat | None]


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What the journal said, and when (monotonic)."""

    at: float
    backlog: int
    unacknowledged: int
    runs: Mapping[tuple[str, str], tuple[int, float]]


class HostMetrics:
    """The page of a host worker, from its start on."""

    def __init__(self, look: Callable[[], Health]) -> None:
        self._look = look
        self._sources: Sources | None = None
        self._stored: _Stored | None = None
        self._make: Callable[[], Page] | None = None

    def watch(self, sources: Sources) -> None:
        self._sources = sources

    def page(self) -> "Page":
        if self._make is None:
            from fleet.local import exposition

            self._make = exposition.page(self._found)
        return self._make()

    def _found(self) -> "Iterator[Metric]":
        from fleet.local.exposition import gauge, labeled

        health = self._look()
        answers = {(question.value,): float(health.answers(question)) for question in Question}
        yield labeled("fleet_worker_health", "Whether this worker is live, healthy, ready.", ("question",), answers)
        checks = {(check.name,): float(check.ok) for check in health.checks}
        yield labeled("fleet_worker_check", "What was looked at for that, and whether it is well.", ("check",), checks)
        info = {(health.version, health.availability or "unknown"): 1.0}
        yield labeled("fleet_worker_info", "Version, and what was decided.", ("version", "availability"), info)
        if (sources := self._sources) is None:
            return
        for name, text, value in (
            ("loop_age_seconds", "Time since the consumer loop last ticked.", sources.pulse.age()),
            ("broker_silence_seconds", "Time since the broker last answered.", sources.pulse.heard_age()),
            ("runs_in_hand", "Runs that the pool holds.", sources.in_hand()),
        ):
            if value is not None:
                yield gauge(f"fleet_worker_{name}", text, value)
        if beat := sources.heartbeat():
            yield gauge("fleet_worker_queue_length", "Messages that wait for this host.", beat.queue_length)
            yield gauge("fleet_worker_dead_letters", "Items that were no messages or refused.", beat.dead_letters)
            skew = "The clock of this host minus the broker's."
            yield gauge("fleet_worker_clock_skew_seconds", skew, beat.clock_skew_seconds)
        if stored := self._ask(sources):
            yield from _of_journal(stored, now=sources.clock.now())

    def _ask(self, sources: Sources) -> _Stored | None:
        """Return what the journal says, or said a moment ago; None where it cannot be read, which its check tells."""
        now = time.monotonic()
        if self._stored is None or now - self._stored.at > _FRESH_SECONDS:
            try:
                self._stored = _Stored(
                    at=now,
                    backlog=sources.outbox.backlog(),
                    unacknowledged=sources.outbox.unacknowledged(),
                    runs=sources.journal.unfinished_by_contract(),
                )
            except sqlite3.Error:
                self._stored = None
        return self._stored


def _of_journal(stored: _Stored, *, now: float) -> "Iterator[Metric]":
    from fleet.local.exposition import by_contract, gauge, labeled

    yield gauge("fleet_worker_outbox_backlog", "Reports that the broker does not have yet.", stored.backlog)
    text = "Reports that the broker has and the control plane has not acknowledged."
    yield gauge("fleet_worker_outbox_unacknowledged", text, stored.unacknowledged)
    counts = {key: float(count) for key, (count, _) in stored.runs.items()}
    runs = by_contract(counts, known=(own.name for own in registry.OWN))
    yield labeled("fleet_worker_runs", "Runs that have not ended, by contract and state.", ("contract", "state"), runs)
    oldest: dict[tuple[str, ...], float] = {}
    for (_, state), (_, since) in stored.runs.items():
        oldest[state,] = max(oldest.get((state,), 0.0), now - since)
    text = "How long ago the oldest of them was accepted, by state."
    yield labeled("fleet_worker_run_age_seconds_max", text, ("state",), oldest)
