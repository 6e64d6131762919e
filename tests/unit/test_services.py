"""Services: Fleet's own `workers`, `beat` and `config` are found, whoever else has packages of these names."""

import subprocess
import sys
from pathlib import Path

import pytest

from fleet import errors, services

FOREIGN_FIRST = """
import sys
sys.path.insert(0, sys.argv[1])
from fleet import services
module = services.load("beat.scheduler")
import workers
print(module.__file__, workers.__file__, sep="\\n")
"""

FOREIGN_IMPORTED = """
import sys
sys.path.insert(0, sys.argv[1])
import workers
from fleet import errors, services
try:
    services.load("beat.scheduler")
except errors.LocalFault as fault:
    print(fault)
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with somebody else's `workers` and `beat`."""
    for name in services.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("FOREIGN = True\n")
    return tmp_path


def run(code: str, foreign: Path) -> str:
    command = [sys.executable, "-c", code, str(foreign)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=services.folder()).stdout


def test_fleet_s_own_come_first_on_the_path(foreign: Path) -> None:
    scheduler, workers = run(FOREIGN_FIRST, foreign).splitlines()
    assert Path(scheduler) == services.folder() / "beat" / "scheduler.py"
    assert Path(workers) == services.folder() / "workers" / "__init__.py"


def test_a_foreign_package_that_is_imported_already_is_refused_by_name(foreign: Path) -> None:
    said = run(FOREIGN_IMPORTED, foreign)
    assert f"another package named 'workers' is imported here already (from {foreign}" in said


def test_a_missing_config_file_is_named() -> None:
    with pytest.raises(errors.LocalFault, match=r"config/nothing\.conf"):
        services.config_file("nothing.conf")
