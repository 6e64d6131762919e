"""A real Docker Engine for tests, with one image made here: busybox, since nothing can be pulled.

The Engine is private (`tests.services.private_engine`) and lives for the whole session; each test gets it without
containers. Where no Engine can be started the tests are skipped on a laptop and fail where CI is set.
"""

import io
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from tests.services.availability import missing
from tests.services.private_engine import PrivateEngine
from tests.services.waiting import until

IMAGE = "fleet-test/busybox:latest"


def busybox_root() -> bytes:
    """Return a root file system with a static busybox and its applets, as a tar archive."""
    binary = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        archive.addfile(entry, io.BytesIO(binary))
        for applet in ("sh", "sleep", "cat", "ls", "echo", "httpd", "true", "false"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()


def require_engine() -> None:
    """Skip, or fail in CI, where no Engine can be started."""
    if reason := PrivateEngine.missing():
        missing(f"no Docker Engine: {reason}")
    if not shutil.which("busybox"):
        missing("no Docker image: busybox is not installed (busybox-static)")


@pytest.fixture(scope="session")
def session_engine() -> Iterator[PrivateEngine]:
    require_engine()
    # A socket's path may have 108 bytes; pytest's own directories are longer.
    engine = PrivateEngine(Path("/tmp") / f"fleet-engine-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    engine.start()
    client = engine.client()
    client.api.import_image_from_data(busybox_root(), repository=IMAGE.partition(":")[0], tag="latest")
    client.close()
    yield engine
    engine.stop()


@pytest.fixture
def docker_engine(session_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The Engine, without any container, volume or network of a test's."""
    yield session_engine
    client = session_engine.client()
    until(lambda: _emptied(client), "nothing of the test is left")
    client.close()


def left(client: docker.DockerClient) -> tuple[list[str], list[str]]:
    """Return the names of all containers and volumes."""
    # docker-py asks after each container that it was told of: one that goes meanwhile is gone, and no error.
    containers = client.containers.list(all=True, ignore_removed=True)
    return sorted(str(each.name) for each in containers), sorted(each.name for each in client.volumes.list())


def _emptied(client: docker.DockerClient) -> bool:
    """Remove everything; False where the Engine was still making something of what the test had asked for."""
    for container in client.containers.list(all=True, ignore_removed=True):
        _remove(container)
    try:
        for volume in client.volumes.list():
            volume.remove()
        for network in client.networks.list(filters={"type": "custom"}):
            network.remove()
    except docker.errors.APIError as exc:
        if exc.status_code not in {403, 409}:  # a container has come that uses it
            raise
        return False
    return True


def _remove(container: Container) -> None:
    """Remove a container, or wait for the Engine to finish doing so by itself (`--rm`)."""
    try:
        container.remove(force=True)
    except docker.errors.APIError as exc:
        if exc.status_code not in {404, 409}:  # gone, or being removed
            raise
        with suppress(docker.errors.NotFound):
            container.wait(condition="removed")


@pytest.fixture
def docker_client(docker_engine: PrivateEngine) -> Iterator[docker.DockerClient]:
    client = docker_engine.client()
    yield client
    client.close()
