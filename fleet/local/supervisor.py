"""The supervisor: keeps a few child processes running, and ends them all when it is told to.

A child that ends is started again after a wait that doubles with each failure; one that ran for a while is forgiven.
Everything that happens is said, with the child's own last line. Nothing is left behind: at the end every descendant
is gone, whatever session it fled to.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from fleet import errors
from fleet.local import process
from fleet.local.output import Output
from fleet.local.process import Descendants, Process
from fleet.local.signals import Signals

#: The wait before the first new start, doubled with each failure, never longer than the other; ± a quarter.
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 30.0
#: A child that ran this long has recovered: its failures are forgotten.
FORGIVEN_AFTER_SECONDS = 30.0
#: How often output files are looked at while nothing happens.
_TRIM_SECONDS = 10.0
#: How often a condition is looked at that no signal announces.
_GLANCE_SECONDS = 0.02
#: Deadlines of the stop: everybody, then those that the others need to the end. Together below the promised 3 s.
_STOP_SECONDS = 1.7
_STOP_LAST_SECONDS = 0.6


class Outcome(Enum):
    """Why the supervisor returned from watching."""

    #: what was waited for has come true
    READY = "ready"
    #: somebody asked to stop
    STOPPING = "stopping"
    #: the time was over
    LATE = "late"


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run. `environment` is asked for at each start."""

    name: str
    argv: Sequence[str]
    environment: Callable[[], Mapping[str, str]]
    directory: Path
    output: Path
    #: the others need it while they end (the broker), so it ends after them
    stops_last: bool = False


@dataclass
class Child:
    """A program and its present process."""

    program: Program
    output: Output
    process: Process | None = None
    started_at: float = 0.0
    #: where in the output file the present process began to speak
    spoke_from: int = 0
    failures: int = 0
    next_start: float = field(default=0.0)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None


class Supervisor:
    """Runs programs until it is asked to stop; `say` gets each sentence for the screen."""

    def __init__(self, *, signals: Signals, say: Callable[[str], None]) -> None:
        self._signals = signals
        self._say = say
        self._children: dict[str, Child] = {}
        self._descendants = Descendants()

    def start(self, program: Program) -> None:
        """Start a program for the first time; raises `errors.LocalFault` where the system refuses."""
        child = Child(program, Output(program.output))
        self._children[program.name] = child
        self._launch(child)

    def pid(self, name: str) -> int | None:
        """Return the pid of a program, or None between its end and its next start."""
        return self._children[name].pid

    def failures(self, name: str) -> int:
        return self._children[name].failures

    def watch(self, until: Callable[[], bool] | None = None, *, seconds: float | None = None) -> Outcome:
        """Keep the children running until a condition holds, the time is over or somebody asks to stop."""
        deadline = None if seconds is None else time.monotonic() + seconds
        trim_at = time.monotonic() + _TRIM_SECONDS
        while True:
            self._look()
            if until is not None and until():
                return Outcome.READY
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return Outcome.LATE
            if now >= trim_at:
                self._trim()
                trim_at = now + _TRIM_SECONDS
            times = [trim_at, *(child.next_start for child in self._children.values() if child.process is None)]
            if deadline is not None:
                times.append(deadline)
            if until is not None:
                times.append(now + _GLANCE_SECONDS)
            if self._signals.asks_to_stop(self._signals.wait(min(times) - now)):
                return Outcome.STOPPING

    def stop(self) -> list[int]:
        """End all children within 3 s, by force where need be; return the pids of what could not be ended.

        Somebody who asks again meanwhile gets force at once. Calling twice is fine.
        """
        everybody = list(self._children.values())
        first = [child for child in everybody if not child.program.stops_last]
        hurry = self._end(first, seconds=_STOP_SECONDS, hurry=False)
        self._end([child for child in everybody if child.program.stops_last], seconds=_STOP_LAST_SECONDS, hurry=hurry)
        self._children.clear()
        return self._descendants.kill(within_seconds=0.5)

    def _launch(self, child: Child) -> None:
        child.output.trim()
        child.spoke_from = child.output.size()
        program = child.program
        child.started_at = time.monotonic()
        child.process = process.spawn(
            program.argv, environment=program.environment(), directory=program.directory, output=program.output
        )

    def _look(self) -> None:
        """Take notice of children that ended, and start those whose wait is over."""
        for child in self._children.values():
            how = child.process.ended() if child.process else None
            if child.process and how is not None:
                child.process.kill()  # what stayed in its group must not meet its successor
                child.process = None
                self._schedule(child, how, said=child.output.last_line(since=child.spoke_from))
            if child.process is None and time.monotonic() >= child.next_start:
                self._launch_again(child)
        self._descendants.bury({child.pid for child in self._children.values() if child.pid})

    def _launch_again(self, child: Child) -> None:
        try:
            self._launch(child)
        except errors.FleetError as exc:
            child.process = None
            self._schedule(child, f"not started ({exc})", said="")
            return
        self._say(f"{child.program.name}: started again, pid {child.pid}")

    def _schedule(self, child: Child, how: str, *, said: str) -> None:
        ran = time.monotonic() - child.started_at
        child.failures = 1 if ran >= FORGIVEN_AFTER_SECONDS else child.failures + 1
        wait = wait_seconds(child.failures)
        child.next_start = time.monotonic() + wait
        last_words = f'; its last line: "{said}"' if said else ""
        self._say(
            f"{child.program.name}: {how} after {ran:.1f} s, starting again in {wait:.1f} s"
            f"{last_words}  (log: {child.program.output})"
        )

    def _end(self, children: list[Child], *, seconds: float, hurry: bool) -> bool:
        """End some children; return whether somebody asked to hurry up."""
        deadline = time.monotonic() + seconds
        running = [(child, child.process) for child in children if child.process]
        if not hurry:
            for _, running_process in running:
                running_process.terminate()
        while not hurry and time.monotonic() < deadline and any(p.ended() is None for _, p in running):
            hurry = self._signals.wait_for_child(deadline)
        for child, running_process in running:
            if running_process.ended() is None:
                self._say(f"{child.program.name}: did not end in time, killed")
            running_process.kill()
            child.process = None
        return hurry

    def _trim(self) -> None:
        for child in self._children.values():
            try:
                child.output.trim()
            except OSError as exc:
                self._say(f"{child.program.name}: its log {child.program.output} cannot be trimmed ({exc.strerror})")


def wait_seconds(failures: int) -> float:
    """Return how long to wait before a new start after so many failures in a row."""
    wait: float = min(FIRST_WAIT_SECONDS * 2 ** min(failures - 1, 20), LONGEST_WAIT_SECONDS)
    return wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
