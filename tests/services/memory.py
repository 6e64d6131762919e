"""Memory: a directory on a tmpfs, where secrets of containers may lie."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A directory of this session's, removed when no worker runs any more: one would write its secrets again."""
    place = Path("/dev/shm") / f"fleet-test-{uuid.uuid4().hex[:12]}"
    place.mkdir(mode=0o700)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def on_tmpfs(memory: Path) -> Path:
    """A directory of a test's that is yet to be made."""
    return memory / uuid.uuid4().hex[:12]
