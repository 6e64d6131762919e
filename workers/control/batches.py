"""Batches of reports, from the lists that they lie in to the database, and what was committed of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.contracts.secrets import SecretsWanted


@dataclass(frozen=True)
class Batch:
    """The oldest items of one sender's list, oldest first."""

    sender: str
    items: Sequence[bytes]
    #: whether the list may hold newer ones, too
    more: bool = False
    #: of the reports in its one item only that at this place; None for all of them
    place: int | None = None

    @property
    def from_principal(self) -> bool:
        return self.sender.startswith("p:")


@dataclass(frozen=True)
class Recorded:
    """What was committed."""

    #: rows of the audit, to publish
    events: Sequence[Mapping[str, Any]]
    #: per host how far each of its sessions is taken in
    taken_in: Mapping[str, Mapping[int, int]]
    #: runs that something in the broker is to be done for: cancelled, given back, forgotten
    unattended: frozenset[str] = frozenset()
    #: (host, session) → first number that is missing, and is waited for
    missing: Mapping[tuple[str, int], int] = field(default_factory=dict)
    #: hosts whose key or password has changed
    changed: frozenset[str] = frozenset()
    #: (host, run) and what they want of the vault
    wanted: Mapping[tuple[str, str], SecretsWanted] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence["Recorded"]) -> "Recorded":
        """Return what several transactions committed, in their order."""
        taken_in: dict[str, dict[int, int]] = {}
        for part in parts:
            for host, newest in part.taken_in.items():
                taken_in.setdefault(host, {}).update(newest)
        unattended = frozenset().union(*(part.unattended for part in parts))
        missing = {session: first for part in parts for session, first in part.missing.items()}
        changed = frozenset().union(*(part.changed for part in parts))
        wanted = {run: asked for part in parts for run, asked in part.wanted.items()}
        return cls([event for part in parts for event in part.events], taken_in, unattended, missing, changed, wanted)
