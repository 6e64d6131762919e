"""TLS for tests: a CA, certificates that are right or wrong in one way each, and a real broker that has one.

The Valkey of the wheel has no TLS; Debian's `redis-server` has. Where it is missing its tests are skipped on a laptop
and fail where CI is set.
"""

import shutil
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pytest
import trustme

from tests.services.availability import missing
from tests.services.broker import Broker, emptied, free_port


@dataclass(frozen=True)
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
    return Certificates(tmp_path_factory.mktemp("certificates"))


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
