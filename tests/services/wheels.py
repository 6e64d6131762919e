"""Wheels: Fleet as users install it, and environments that they are installed in.

What Fleet depends on is downloaded once a session (twelve seconds from pip's cache), for images that are built offline.
"""

import subprocess
import sys
import sysconfig
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


def build(project: Path, *, target: Path) -> Path:
    """Build the wheel of a project by what is installed here, and return its path."""
    before = set(target.glob("*.whl"))
    _python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(project))
    (wheel,) = set(target.glob("*.whl")) - before
    return wheel


def install(directory: Path, wheels: Sequence[Path]) -> Path:
    """Make a virtual environment with these wheels, and return the directory of its programs.

    What they depend on is what is installed here, and already compiled. That they say all of it is for compose.yaml and
    the generated images to show, which have nothing else.
    """
    venv.create(directory, symlinks=True, with_pip=False)
    _pip("--python", str(directory / "bin" / "python"), "install", "--no-index", "--no-deps", *map(str, wheels))
    packages = next(directory.glob("lib/python*/site-packages"))
    # A path in a .pth file is searched after the environment's own packages, and its own .pth files (an editable
    # install of this checkout) mean nothing there.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory / "bin"


def _pip(*arguments: str) -> None:
    _python("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _python(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"
