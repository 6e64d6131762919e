"""Health of a control worker: what its loops know of broker, database and lease, as answers to what is asked.

The database is asked by a beat of its own, so a question that gets no answer holds up neither whoever asks for health
nor the lease, and nobody can make it be asked more often.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fleet import health, version
from fleet.health import HANGS_SECONDS, Check, Health, Question
from workers.control.ingest import Trouble

#: The lease is asked for every two seconds, and a try lasts two at most.
_SILENT_SECONDS = 10.0
#: The database is asked every five seconds.
_DATABASE_SECONDS = 15.0
#: What may be held up by a database that somebody has locked to look after it: ending the process would not mend that.
#: The slow beat waits for long queues, too.
_HANG_AFTER = {"beat": 120.0, "ingest": 120.0, "enrollment": 120.0, "slow-beat": 300.0}
#: An outage of a few seconds, such as a database that starts anew, is none of which anybody has to hear.
_RECORDS_NOTHING_SECONDS = 30.0
#: Loops that have to tick for control work to be done. (Whether the beat does is seen by the lease.)
_AT_WORK = {"ingest": "takes in what hosts report", "enrollment": "lets hosts in"}


class Beat(Protocol):
    def age(self) -> float | None: ...
    def worked(self, name: str) -> float | None: ...


class Lease(Protocol):
    def held(self) -> bool: ...


class Ingest(Protocol):
    def trouble(self) -> Trouble | None: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a control worker that has been put together can be judged by."""

    #: renews the lease (entry `lease`)
    beat: Beat
    #: asks the database (entry `database`)
    database_beat: Beat
    lease: Lease
    ingest: Ingest
    #: the age of each loop's last tick, by name; None for one that has yet to begin
    ages: Mapping[str, Callable[[], float | None]]


class ControlHealth:
    """Looks at one control worker, from its start on."""

    def __init__(self) -> None:
        self._version = version.current()
        #: None until it is put together: it waits for its broker
        self._parts: Parts | None = None
        self._ending = False

    def watch(self, parts: Parts) -> None:
        self._parts = parts

    def ending(self) -> None:
        """Take note that it was told to stop."""
        self._ending = True

    def look(self) -> Health:
        """Say how it is; thread-safe."""
        return Health(part="control", version=self._version, checks=self._checks())

    def _checks(self) -> tuple[Check, ...]:
        parts = self._parts
        if self._ending:  # within two seconds, and the process ends with it
            return (
                Check(name="loops", ok=True, text="it is ending", counts_for=Question.LIVE),
                _not_at_work("it ends"),
            )
        if parts is None:
            waits = "it is starting: it waits for its broker, or prepares its database"
            return (Check(name="loops", ok=True, text="it is starting", counts_for=Question.LIVE), _not_at_work(waits))
        ages = {name: age() for name, age in parts.ages.items()}
        loops = health.loops(ages, hang_after=_HANG_AFTER)
        at_work = {name: _ticks(name, ages[name], does) for name, does in _AT_WORK.items()}
        if at_work["ingest"].ok and (failing := _records_nothing(parts.ingest)):
            at_work["ingest"] = failing
        broker = _answered("broker", parts.beat.worked("lease"), silent_seconds=_SILENT_SECONDS)
        answered = parts.database_beat.worked("database")
        database = _answered("database", answered, silent_seconds=_DATABASE_SECONDS)
        return (loops, broker, database, _lease(parts), *at_work.values())


def _not_at_work(why: str) -> Check:
    return Check(name="lease", ok=False, text=why)


def _ticks(name: str, age: float | None, does: str) -> Check:
    if age is None:
        return Check(name=name, ok=False, text="it has not begun")
    ticks = age <= HANGS_SECONDS
    return Check(name=name, ok=ticks, text=does if ticks else f"it has not ticked for {age:.0f} s", age_seconds=age)


def _records_nothing(ingest: Ingest) -> Check | None:
    """Return the check that fails where it ticks, and nothing that it tries goes through: no restart mends a full disk,
    so that it is alive all the same."""
    trouble = ingest.trouble()
    if trouble is None or trouble.seconds <= _RECORDS_NOTHING_SECONDS:
        return None
    text = f"it has recorded nothing for {trouble.seconds:.0f} s: {trouble.reason}"
    return Check(name="ingest", ok=False, text=text, age_seconds=trouble.seconds)


def _answered(name: str, age: float | None, *, silent_seconds: float) -> Check:
    """Say whether somebody who is asked again and again has answered lately."""
    if age is None:
        return Check(name=name, ok=False, text="it has not answered yet")
    if age > silent_seconds:
        return Check(name=name, ok=False, text=f"it has not answered for {age:.0f} s", age_seconds=age)
    return Check(name=name, ok=True, text=f"it answered {age:.0f} s ago", age_seconds=age)


def _lease(parts: Parts) -> Check:
    """Whoever asks for the lease and is answered knows that somebody has it."""
    age = parts.beat.worked("lease")
    if parts.lease.held():
        return Check(name="lease", ok=True, text="this control worker holds it, and writes the ledger", age_seconds=age)
    if age is None or age > _SILENT_SECONDS:
        return Check(name="lease", ok=False, text="nobody knows who holds it", age_seconds=age)
    return Check(name="lease", ok=True, text="another control worker holds it; this one stands by", age_seconds=age)
