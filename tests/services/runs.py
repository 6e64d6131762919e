"""Runs as functions of contracts are told of them, without a journal behind them."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NUMBERS = itertools.count(1)


@dataclass
class FakeRun:
    """A run's context that keeps what it is told, and is over when a test says so."""

    run_id: str = field(default_factory=lambda: f"edge:01900000-0000-7000-9000-{next(_NUMBERS):012}")
    host: str = "edge"
    attempt: int = 1
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    submitted_by: str = "tester"
    docker: Any = None
    steps: list[str] = field(default_factory=list)
    over: bool = False
    #: the step with which it is over
    over_after: str = ""

    def progress(self, step: str, percent: float | None = None) -> None:
        self.steps.append(step)
        self.over = self.over or step == self.over_after

    def ended(self) -> bool:
        return self.over
