"""A job: what a run below a supervisor is told, and who hears of it meanwhile.

It goes to the supervisor over a socket: its secrets never lie on a disk, nor in arguments or an environment.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from workers.host.executing import Execution


@dataclass(frozen=True)
class Job:
    """What a run below a supervisor is told."""

    run_id: str
    attempt: int
    task: str
    arguments: Mapping[str, Any]
    host: str
    description: str
    metadata: Mapping[str, Any]
    submitted_by: str
    soft_seconds: float | None
    hard_seconds: float
    #: what is run instead of a package's function
    program: Execution | None = None
    #: values that its output must not show, in base64
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Listener(Protocol):
    """Hears what a program writes while it runs."""

    def say(self, name: str, text: str) -> None:
        """Take text of "stdout" or "stderr"."""

    def miss(self, lines: int, within: Mapping[str, bool]) -> None:
        """Take note that so many lines come to nobody; `within` says of each stream that had some whether they left it
        within a line."""
