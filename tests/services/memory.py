"""Memory: a directory on a tmpfs, where secrets of containers may lie."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def on_tmpfs() -> Iterator[Path]:
    """A directory that is yet to be made."""
    place = Path("/dev/shm") / f"fleet-test-{uuid.uuid4().hex[:12]}"
    yield place
    shutil.rmtree(place, ignore_errors=True)
