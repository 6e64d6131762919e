"""Tallies: what was pushed, and what became of it."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol


@dataclass
class Tally:
    """The counts of one fault, of one seed or of many together."""

    attempted: int = 0
    #: the push returned, so the sender counts on it
    acknowledged: int = 0
    #: succeeded, with its one effect
    ok: int = 0
    #: acknowledged, and neither done nor given an end within the time of the test
    lost: int = 0
    #: more than one effect of a run that must not have two
    duplicated: int = 0
    #: ended as `unknown`: nobody can say whether it had its effect
    unknown: int = 0
    #: the record says another thing than the effects: succeeded without one, expired with one
    wrong: int = 0
    #: seconds from the end of the fault until work went on
    recovered: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong)

    def summary(self) -> str:
        times = f"{min(self.recovered):.1f} to {max(self.recovered):.1f} s" if self.recovered else "no time"
        return (
            f"{self.attempted} attempted, {self.acknowledged} acknowledged, {self.ok} ok, {self.lost} lost, "
            f"{self.duplicated} twice, {self.unknown} unknown, {self.wrong} wrong; back within {times}"
        )


def total(tallies: Iterable[Tally]) -> Tally:
    return sum(tallies, Tally())


class Works(Protocol):
    """Something that has effects."""

    def effects(self) -> int: ...


def wait_for_effect(subject: Works, since: float, *, more_than: int, timeout: float) -> float | None:
    """Return how many seconds after `since` (monotonic) the subject had more effects than that; None if not in time."""
    deadline = time.monotonic() + timeout
    while subject.effects() <= more_than:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    return time.monotonic() - since


def effects(log: Path) -> Counter[str]:
    """Return how many effects each run had."""
    if not log.exists():
        return Counter()
    return Counter(line.split()[0] for line in log.read_text(errors="replace").splitlines() if line)
