"""compose.yaml, brought up by a real Engine from a copy of the checkout that needs no package index.

The copy holds what a clone would (the working tree, committed or not) plus `wheels/`, which config/docker/Dockerfile
installs from when it is there.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.services import base_images
from tests.services.private_engine import PrivateEngine
from tests.services.wheels import REPOSITORY

#: The first `up` builds the image: half a minute on two cores.
_TIMEOUT_SECONDS = 280


class Compose:
    """One project of docker-compose in one Engine."""

    def __init__(self, *, directory: Path, engine: PrivateEngine, project: str, settings: Mapping[str, str]) -> None:
        self._directory = directory
        self._engine = engine
        self._project = project
        # Nothing of FLEET_* may leak in from whoever runs the tests.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "COMPOSE_"))}
        self._environment = {
            **inherited,
            "DOCKER_HOST": engine.url,
            "DOCKER_SOCKET": str(engine.socket),
            **settings,
        }

    @staticmethod
    def missing() -> str:
        """Return why compose.yaml cannot be brought up here, or an empty string."""
        if problem := PrivateEngine.missing() or base_images.missing():
            return problem
        return "" if shutil.which("docker-compose") else "not installed: docker-compose"

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run one docker-compose command, whatever it exits with."""
        return subprocess.run(
            ["docker-compose", "--project-name", self._project, *argv],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )

    def check(self, *argv: str) -> str:
        """Run one docker-compose command that must succeed; return what it wrote to standard output."""
        done = self.run(*argv)
        if done.returncode:
            logs = self.run("logs", "--no-color", "--tail=60").stdout
            raise AssertionError(
                f"docker-compose {' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}\n{logs}"
            )
        return done.stdout

    def execute(self, service: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a service's container; by the Engine: docker-compose takes a second of CPU to ask it."""
        labels = [f"com.docker.compose.project={self._project}", f"com.docker.compose.service={service}"]
        with closing(self._engine.client()) as client:
            (container,) = client.containers.list(ignore_removed=True, filters={"label": labels})
            code, output = container.exec_run(list(argv), demux=True)
        return subprocess.CompletedProcess(argv, code, *((part or b"").decode() for part in output))


def checkout(target: Path, *, wheelhouse: Path) -> None:
    """Make a copy of the working tree at `target`, as `git clone` would, with the wheels that its image needs."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    shutil.copytree(wheelhouse, target / "wheels")
