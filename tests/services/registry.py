"""A registry of images: Debian's `docker-registry`, on loopback, which the private Engine reaches by a link.

The Engine has a network of its own; the link listens in there, and speaks to the registry out here. An Engine trusts
registries on loopback without TLS.
"""

import ctypes
import io
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.services.availability import missing
from tests.services.docker import IMAGE
from tests.services.ports import free_port
from tests.services.private_engine import PrivateEngine
from tests.services.proxy import Link
from tests.services.waiting import until

#: Who may use the registry that asks for it, and "opensesame" as bcrypt has it.
USER, PASSWORD = "ann", "opensesame"
_HASH = "$2b$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi"
_CLONE_NEWNET = 0x40000000  # sched.h
_CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/images}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_LOGIN = """
auth: {{htpasswd: {{realm: test, path: {directory}/users}}}}
"""


class Registry:
    """One registry, and the link by which one Engine reaches it."""

    def __init__(self, engine: PrivateEngine, directory: Path, *, login: bool = False) -> None:
        self._port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "registry.yml"
        config.write_text((_CONFIG + (_LOGIN if login else "")).format(directory=directory, port=self._port))
        (directory / "users").write_text(f"{USER}:{_HASH}\n")
        log = (directory / "registry.log").open("wb")
        self._process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
        log.close()
        until(self._answers, f"a registry: {(directory / 'registry.log').read_text()}")
        self._links: list[Link] = []
        self.link = self.link_for(engine)

    def link_for(self, engine: PrivateEngine) -> Link:
        """Return a link by which another Engine reaches it, too."""
        self._links.append(Link(self._port, listener=listener_inside(engine)))
        return self._links[-1]

    @property
    def address(self) -> str:
        """Where the Engine finds it; repositories begin with that."""
        return f"127.0.0.1:{self.link.port}"

    def fill(self, client: docker.DockerClient, name: str, *, layers: int = 2, megabytes: int = 1) -> str:
        """Put an image into it that the Engine has not, of layers that nobody can compress; return its name."""
        full = f"{self.address}/{name}"
        container_id = client.api.create_container(IMAGE, ["/bin/true"])["Id"]
        for number in range(layers - 1):
            archive = _archive(f"layer-{name.replace('/', '-')}-{number}", megabytes)
            client.api.put_archive(container_id, "/", archive)
            image = client.api.commit(container_id, repository=full, tag="latest")["Id"]
            client.api.remove_container(container_id)
            container_id = client.api.create_container(image, ["/bin/true"])["Id"]
        client.api.remove_container(container_id)
        if layers == 1:
            client.api.tag(IMAGE, full)
        for said in client.api.push(full, stream=True, decode=True, auth_config=self.login()):
            assert "error" not in said, said
        client.api.remove_image(full)
        return full

    @staticmethod
    def login() -> dict[str, str]:
        return {"username": USER, "password": PASSWORD}

    def end(self) -> None:
        for link in self._links:
            link.close()
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


def listener_inside(engine: PrivateEngine) -> socket.socket:
    """Return a socket that listens on loopback in the Engine's network."""
    made: list[socket.socket] = []

    def make() -> None:
        # A thread may be in another network than its process, and a socket stays where it was made.
        libc = ctypes.CDLL(None, use_errno=True)
        network = os.open(f"/proc/{engine.daemon_pid}/ns/net", os.O_RDONLY)
        try:
            if libc.setns(network, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server(("127.0.0.1", 0)))
        finally:
            os.close(network)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def _archive(name: str, megabytes: int) -> bytes:
    data, buffer = os.urandom(megabytes * 2**20), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime = len(data), int(time.time())
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def require_registry() -> None:
    """Skip, or fail in CI, where there is no registry to start."""
    if not shutil.which("docker-registry"):
        missing("no registry of images: docker-registry is not installed")


@pytest.fixture
def registry(docker_engine: PrivateEngine, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry."""
    require_registry()
    made = Registry(docker_engine, tmp_path / "registry")
    yield made
    made.end()


@pytest.fixture
def locked_registry(docker_engine: PrivateEngine, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry that wants a login."""
    require_registry()
    made = Registry(docker_engine, tmp_path / "locked-registry", login=True)
    yield made
    made.end()
