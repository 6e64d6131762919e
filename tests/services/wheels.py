"""Wheels: Fleet as users install it, and environments that hold nothing but what was asked for.

What Fleet depends on is downloaded once a session (twelve seconds from pip's cache); every installation afterwards is
offline, from that directory.
"""

import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheels of everything that building and running Fleet takes, Fleet's own excepted."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    directory = tmp_path_factory.mktemp("wheelhouse")
    requirements = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    _pip("download", "--only-binary=:all:", "--dest", str(directory), *requirements)
    return directory


def build(source: Path, *, wheelhouse: Path, target: Path) -> Path:
    """Build the wheel of a project, isolated from this environment, and return its path."""
    before = set(target.glob("*.whl"))
    _pip("wheel", *_offline(wheelhouse), "--no-deps", "--wheel-dir", str(target), str(source))
    (wheel,) = set(target.glob("*.whl")) - before
    return wheel


def install(directory: Path, wheels: Sequence[Path], *, wheelhouse: Path) -> Path:
    """Make a virtual environment with these wheels and what they depend on; return the directory of its programs."""
    venv.create(directory, symlinks=True, with_pip=False)
    _pip(
        *("--python", str(directory / "bin" / "python")),
        *("install", *_offline(wheelhouse), "--no-compile", *map(str, wheels)),
    )
    return directory / "bin"


def _offline(wheelhouse: Path) -> tuple[str, ...]:
    return ("--no-index", "--find-links", str(wheelhouse))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pip {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
