"""What kombu and Celery make of Fleet's TLS options: a verifying connection, whatever else they are told.

Left to themselves they do not. kombu takes `ssl=True` for plaintext and turns verification off for a bare `rediss://`
(with a transport that is named by its class, it drops TLS for that), and Celery lets environment variables overrule an
app. These traps are tested to be there, so that it is noticed when they go, and beside each that Fleet is safe from it.
"""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection

from fleet.broker import app as broker_app
from fleet.broker import tls
from tests.services.broker import Broker
from workers.host import consumer

TRANSPORTS = ["fleet.broker.channel:Transport", "fleet.flower.channel:Transport", "workers.host.transport:Transport"]
BACKEND = "fleet.broker.results:Backend"
ELSEWHERE = "redis://elsewhere.example:6379/0"


def make(broker: Broker, transport: str = TRANSPORTS[0]) -> Celery:
    if transport.startswith("workers"):
        login = redis.UsernamePasswordCredentialProvider("default", "any: it has none")
        return consumer.make_app("h1", broker.address, inbox="i", takes_work=bool, link=None, login=login)
    return broker_app.make(
        "t", broker=broker.address, transport=transport, transport_options={}, result_backend=BACKEND
    )


@contextlib.contextmanager
def opened(link: Connection, *, asynchronous: bool = False) -> Iterator[Any]:
    """Give a connection of a kombu channel to the broker, connected."""
    with link, contextlib.closing(link.channel()) as channel:
        pool = channel.async_pool if asynchronous else channel.pool
        connection = pool.make_connection()
        connection.connect()
        try:
            yield connection
        finally:
            connection.disconnect()


def verifies(connection: Any, *, by: Broker) -> bool:
    """Say whether the open socket is one that checks certificate and name by the broker's CA, and by no other."""
    context = connection._sock.context
    assert by.ca is not None
    return (
        isinstance(connection, tls.VerifiedConnection)
        and context.verify_mode is ssl.CERT_REQUIRED
        and context.check_hostname is True
        and context.get_ca_certs(binary_form=True) == [ssl.PEM_cert_to_DER_cert(by.ca.read_text())]
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_options_end_up_as_a_verifying_socket_in_kombu(
    transport: str, *, asynchronous: bool, tls_broker: Broker
) -> None:
    app = make(tls_broker, transport)
    for link in (app.connection(), app.connection_for_read(), app.connection_for_write()):
        with opened(link, asynchronous=asynchronous) as connection:
            assert verifies(connection, by=tls_broker)


def test_the_options_end_up_as_a_verifying_socket_in_the_result_backend(tls_broker: Broker) -> None:
    backend: Any = make(tls_broker).backend
    connection = backend.client.connection_pool.make_connection()
    connection.connect()
    assert verifies(connection, by=tls_broker)
    connection.disconnect()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_in_plaintext_they_are_held_to_this_machine(transport: str, broker: Broker) -> None:
    app = make(broker, transport)
    for asynchronous in (False, True):
        with opened(app.connection(), asynchronous=asynchronous) as connection:
            assert isinstance(connection, tls.LoopbackConnection)
    if app.conf.result_backend or app.backend_cls != "disabled://":
        backend: Any = app.backend
        assert isinstance(backend.client.connection_pool.make_connection(), tls.LoopbackConnection)


def test_a_bare_rediss_url_switches_verification_or_tls_off_in_kombu(tls_broker: Broker) -> None:
    with opened(Connection(tls_broker.url)) as connection:
        assert connection._sock.context.verify_mode is ssl.CERT_NONE
    # In Fleet's channel it is plaintext that goes nowhere but this machine, where this broker wants TLS.
    bare = Connection(tls_broker.url, transport=TRANSPORTS[0])
    with pytest.raises(tls.Unanswered, match="for TLS write rediss"), opened(bare):
        pass


def test_ssl_true_means_plaintext_to_kombu_and_fleets_channel_keeps_it_on_this_machine(broker: Broker) -> None:
    url = broker.url.replace("redis://", "rediss://")
    with opened(Connection(url, ssl=True)) as connection:
        assert not isinstance(connection, redis.SSLConnection)
    with opened(Connection(url, ssl=True, transport=TRANSPORTS[0])) as connection:
        assert isinstance(connection, tls.LoopbackConnection)


def test_options_that_would_switch_it_off_change_nothing(tls_broker: Broker) -> None:
    off = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False, "ssl_ca_data": tls_broker.address.ca}
    with opened(Connection(tls_broker.url, ssl=off, transport=TRANSPORTS[0])) as connection:
        assert verifies(connection, by=tls_broker)
    app = broker_app.make(
        "t",
        broker=tls_broker.address,
        transport=TRANSPORTS[0],
        transport_options={},
        result_backend=BACKEND,
    )
    app.conf.redis_backend_use_ssl = off
    backend: Any = app.backend
    connection = backend.client.connection_pool.make_connection()
    connection.connect()
    assert verifies(connection, by=tls_broker)
    connection.disconnect()


def test_the_environment_overrules_a_celery_app_and_not_fleets(
    tls_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, ELSEWHERE)
    stock = Celery("stock", set_as_current=False, fixups=[], broker=tls_broker.url, backend=tls_broker.url)
    stock_backend: Any = stock.backend
    for link in (stock.connection(), stock.connection_for_read(), stock.connection_for_write()):
        assert link.hostname == "elsewhere.example"
    assert stock_backend.connparams["host"] == "elsewhere.example"
    app = make(tls_broker)
    backend: Any = app.backend
    for link in (app.connection(), app.connection_for_read(), app.connection_for_write(), app.pool.acquire()):
        with opened(link) as connection:
            assert (connection.host, connection.port) == ("127.0.0.1", tls_broker.port)
    assert (backend.connparams["host"], backend.connparams["port"]) == ("127.0.0.1", tls_broker.port)
