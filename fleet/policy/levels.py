"""Levels: what each level of trust may do where no rule says otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.contracts import Risk
from fleet.contracts.verdicts import Decision
from fleet.security.identity import Level


@dataclass(frozen=True, kw_only=True)
class _Says:
    """What a level says to risks."""

    allowed: frozenset[Risk]
    allows: str = ""
    #: what comes of all other risks
    otherwise: Decision = Decision.ASK
    says: str = ""


_LOOKS = frozenset({Risk.READS})
_CHANGES = _LOOKS | {Risk.CHANGES}
#: Tasks: what a contract itself can do.
_TASKS: Mapping[Level, _Says] = {
    Level.STUDENT: _Says(
        allowed=_LOOKS, allows="students may look", otherwise=Decision.DENY, says="students may only look"
    ),
    Level.INTERN: _Says(allowed=_LOOKS, allows="interns may look", says="interns ask for more than looking"),
    Level.SUPERVISED: _Says(
        allowed=_CHANGES,
        allows="supervised principals may look and change",
        says="supervised principals ask for what destroys or executes",
    ),
    Level.AUTONOMOUS: _Says(allowed=frozenset(Risk), allows="autonomous principals may do everything"),
}
#: Entries of the allow-list. What is not listed is denied at every level.
_ENTRIES: Mapping[Level, _Says] = {
    Level.STUDENT: _Says(allowed=frozenset(), says="students ask for everything that is listed"),
    Level.INTERN: _Says(
        allowed=_LOOKS, allows="interns do what is listed and reads", says="interns ask for more than looking"
    ),
    Level.SUPERVISED: _Says(
        allowed=_CHANGES,
        allows="supervised principals do what is listed and reads or changes",
        says="supervised principals ask for what destroys or executes",
    ),
    Level.AUTONOMOUS: _Says(allowed=frozenset(Risk), allows="autonomous principals do everything that is listed"),
}


def of_task(level: Level, risk: Risk) -> tuple[Decision, str]:
    """Return what a level says to a task of that risk, and why."""
    return _say(_TASKS[level], risk)


def of_entry(level: Level, risk: Risk) -> tuple[Decision, str]:
    """Return what a level says to what an entry of that risk lists, and why."""
    return _say(_ENTRIES[level], risk)


def _say(says: _Says, risk: Risk) -> tuple[Decision, str]:
    return (Decision.ALLOW, says.allows) if risk in says.allowed else (says.otherwise, says.says)
