"""A package of contracts as hosts have installed: with `PATH` on the path, Fleet knows its entry point."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.contracts import registry

PATH = Path(__file__).parent
_ROOT = PATH.parents[2]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test package is installed, in this process and those that it starts."""
    monkeypatch.syspath_prepend(str(PATH))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PATH), str(_ROOT)]))
    registry.known.cache_clear()
    yield PATH
    registry.known.cache_clear()
