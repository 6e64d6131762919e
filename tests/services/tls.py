"""TLS for tests: a CA, certificates that are right or wrong in one way each, and a real broker that has one.

The Valkey of the wheel has no TLS; Debian's `redis-server` has. Where it is missing its tests are skipped on a laptop
and fail where CI is set.
"""

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pytest
import trustme

from tests.services.availability import missing
from tests.services.broker import Broker, emptied
from tests.services.ports import free_port


@dataclass
class Certificates:
    """A CA and what it signs, as files below a directory."""

    directory: Path

    @cached_property
    def _authority(self) -> trustme.CA:
        return trustme.CA()

    @cached_property
    def ca(self) -> Path:
        """The CA's certificate."""
        path = self.directory / "ca.pem"
        self._authority.cert_pem.write_to_path(path)
        return path

    def server(self, *names: str, expired: bool = False) -> Path:
        """Return a file with the certificate and the key of a server of those names (host names or addresses)."""
        path = self.directory / f"{'-'.join(names) or 'none'}{'-expired' if expired else ''}.pem"
        day = timedelta(days=1)
        until = datetime.now(UTC) - day if expired else datetime.now(UTC) + day
        issued = self._authority.issue_cert(*names, not_before=until - 2 * day, not_after=until)
        issued.private_key_and_cert_chain_pem.write_to_path(path)
        return path


def redis_server() -> Path:
    """Return Debian's redis-server."""
    found = shutil.which("redis-server")
    if found is None:
        missing("no redis-server is installed")
    return Path(str(found))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The CA of the tests' brokers."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def other_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA that has nothing to do with the tests' brokers."""
    return Certificates(tmp_path_factory.mktemp("other-certificates"))


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Broker]:
    directory = tmp_path_factory.mktemp("redis-tls")
    certificate = certificates.server("localhost", "127.0.0.1")
    server = Broker(redis_server(), directory, free_port(), certificate=certificate, ca=certificates.ca)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def tls_broker(tls_server: Broker) -> Broker:
    """An empty Redis that speaks TLS, by a certificate of the tests' CA for `localhost` and 127.0.0.1."""
    return emptied(tls_server)


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Impostor:
    """Something that listens where a broker should be, and keeps what it is told.

    With a certificate it speaks TLS and keeps what arrives inside; without one it keeps the bytes as they come. It
    answers +OK to everything, so that whoever trusts it would go on talking.
    """

    def __init__(self, certificate: Path | None) -> None:
        self._context = server_context(certificate) if certificate else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.told = b""
        self.connections = 0
        self._links: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(30)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._listen, args=(near,), daemon=True))
                self._threads[-1].start()

    def _listen(self, near: socket.socket) -> None:
        near.settimeout(30)
        with contextlib.suppress(OSError), near:
            link = self._context.wrap_socket(near, server_side=True) if self._context else near
            with link:
                self._links.append(link)
                while data := link.recv(65536):
                    self.told += data
                    link.sendall(b"+OK\r\n")


@pytest.fixture
def impostor(certificates: Certificates) -> Iterator[Callable[..., Impostor]]:
    """Return a function that starts one."""
    started: list[Impostor] = []

    def start(certificate: Path | None) -> Impostor:
        started.append(Impostor(certificate))
        return started[-1]

    yield start
    for each in started:
        each.close()
