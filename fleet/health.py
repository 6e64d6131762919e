"""Health: the words in which a worker and a control worker say how they are.

There are three questions. *Live*: can the process still do something about itself? If not, ending it helps, and that
is what systemd and orchestrators do. *Healthy*: is it at work, too? *Ready*: can it do container work as well? Each
check says which of these it counts for. What people have decided is no ill health: a host that is paused or draining is
as ready as before, because whoever acts upon readiness would otherwise end and replace it for that, again and again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: Whatever ticks does so every ten seconds or so; silent for three times that it hangs.
HANGS_SECONDS = 30.0


class Question(StrEnum):
    """What can be asked, from the least to the most."""

    LIVE = "live"
    HEALTHY = "healthy"
    READY = "ready"

    def includes(self, other: "Question") -> bool:
        """Say whether what counts for the other one counts for this one, too."""
        return _ORDER.index(other) <= _ORDER.index(self)


_ORDER = tuple(Question)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    #: a sentence for people, without anything secret
    text: str
    #: seconds since that which it speaks of was seen last; None where there is nothing to count from
    age_seconds: float | None = None
    #: the least question that it counts for
    counts_for: Question = Question.HEALTHY


@dataclass(frozen=True, kw_only=True)
class Health:
    """How one process is."""

    #: "worker" or "control"
    part: str
    version: str
    checks: tuple[Check, ...]
    host: str | None = None
    #: what has been decided about a host: active, paused or draining; None where that is not known
    availability: str | None = None

    def answers(self, question: Question) -> bool:
        """Say yes or no to a question."""
        return all(check.ok for check in self.checks if question.includes(check.counts_for))

    def to_wire(self) -> dict[str, Any]:
        """Return it as the endpoint answers it."""
        found: dict[str, Any] = {"part": self.part, "host": self.host, "version": self.version}
        found |= {question.value: self.answers(question) for question in Question}
        found["availability"] = self.availability
        found["checks"] = [
            {
                "name": check.name,
                "ok": check.ok,
                "text": check.text,
                "age_seconds": None if check.age_seconds is None else round(check.age_seconds, 3),
                "counts_for": check.counts_for.value,
            }
            for check in self.checks
        ]
        return found


#: Looks now. It must not wait for anything: it judges by what is known.
Look = Callable[[], Health]


def loops(ages: Mapping[str, float | None], *, hang_after: Mapping[str, float]) -> Check:
    """Say whether all loops of a process tick, by the age of each one's last tick; None before the first."""
    known = {name: age for name, age in ages.items() if age is not None}
    hanging = {name: age for name, age in known.items() if age > hang_after.get(name, HANGS_SECONDS)}
    oldest = max(known.values(), default=None)
    if hanging:
        said = ", ".join(f"{name} has not ticked for {age:.0f} s" for name, age in sorted(hanging.items()))
    else:
        said = f"all tick: {', '.join(sorted(ages))}" if len(known) == len(ages) else "it is starting"
    return Check(name="loops", ok=not hanging, text=said, age_seconds=oldest, counts_for=Question.LIVE)
