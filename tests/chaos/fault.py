"""The faults, by their numbers: what each promises, and how it is made on Fleet and on stock Celery."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.chaos.tally import Tally, total


@dataclass(frozen=True)
class Scale:
    """How much of a fault is done."""

    short: bool = False

    def of(self, full: Any, short: Any) -> Any:
        return short if self.short else full


#: Does a fault once for each seed, and counts.
Make = Callable[[Sequence[int], Scale], Tally]


@dataclass(frozen=True)
class Fault:
    number: int
    name: str
    promise: str
    fleet: Make
    #: None where there is nothing to compare with, and why
    stock: Make | None = None
    why_not: str = ""
    #: how many seeds a full run does
    seeds: int = 20
    #: as many as there are manners of it; they differ in their random moments too, of which `make chaos` tries many
    short_seeds: int = 1


def each(
    subjects: Sequence[Any], seeds: Sequence[int], act: Callable[[Any, random.Random], Tally], *, at_once: int = 8
) -> Tally:
    """Do something with each subject and its seed, several at once; an error of the harness ends the whole."""

    def one(pair: tuple[Any, int]) -> Tally:
        subject, seed = pair
        tally = act(subject, random.Random(seed))
        tally.notes = [f"seed {seed}: {note}" for note in tally.notes]
        return tally

    with ThreadPoolExecutor(at_once) as pool:
        return total(pool.map(one, zip(subjects, seeds, strict=True)))


def wait(seconds: float) -> None:
    """Let a fault last."""
    threading.Event().wait(seconds)
