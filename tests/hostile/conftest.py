"""What all tests of this folder share."""

from pathlib import Path

import pytest

from tests.services.locked import Locked


@pytest.fixture
def backend() -> str:
    """Permissions are the broker's; one database will do."""
    return "sqlite"


@pytest.fixture
def fleet_of_two(locked: Locked, offered: Path) -> Locked:
    """h1 and h2, which have a package of contracts; no Docker."""
    locked.packages = [offered]
    locked.start_control()
    for host in ("h1", "h2"):
        locked.enroll(host, labels={"env": "test"})
        locked.start_worker(host)
    return locked


def push(locked: Locked, task: str = "fleet.host.ping", *, host: str = "h1", **options: object) -> str:
    return locked.fleet.push(task, on=host, **options).run_ids[0]  # type: ignore[arg-type]
