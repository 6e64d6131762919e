"""TLS: whoever cannot show to be the broker is told nothing, on any way to it; and each error says what to do."""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis

from fleet import address, credentials, errors, joining, tokens
from fleet.address import Address
from fleet.broker import app as broker_app
from fleet.broker import tls
from fleet.broker.connection import connect, translated
from fleet.client import Fleet
from fleet.settings import Settings
from tests import factories
from tests.services.broker import Broker
from tests.services.tls import Certificates, Impostor
from workers.host import consumer

PASSWORD = "hunter2-hunter2"

Start = Callable[[Path | None], Impostor]


def by_redis(broker: Address) -> None:
    with connect(broker, name="test") as client:
        client.ping()


def by_kombu_as_a_client(broker: Address) -> None:
    app = broker_app.make("t", broker=broker, transport="fleet.broker.channel:Transport", transport_options={})
    _ask_by_kombu(app)


def by_kombu_as_a_host(broker: Address) -> None:
    login = redis.UsernamePasswordCredentialProvider("default", PASSWORD)
    _ask_by_kombu(consumer.make_app("h1", broker, inbox="i", takes_work=bool, link=None, login=login))


def by_kombu_as_flower(broker: Address) -> None:
    _ask_by_kombu(broker_app.make("t", broker=broker, transport="fleet.flower.channel:Transport", transport_options={}))


def by_the_result_backend(broker: Address) -> None:
    app = broker_app.make(
        "t",
        broker=broker,
        transport="fleet.broker.channel:Transport",
        transport_options={},
        result_backend="fleet.broker.results:Backend",
    )
    backend: Any = app.backend
    try:
        backend.client.get("key")
    finally:
        backend.client.close()


def by_the_library(broker: Address) -> None:
    held = factories.principal_credential("alice", broker_url=broker.url).model_copy(update={"broker_ca": broker.ca})
    with TemporaryDirectory() as directory:
        path = Path(directory) / "alice.json"
        credentials.save_principal(path, held)
        with (
            contextlib.suppress(errors.BrokerEmpty),  # it has answered
            Fleet(Settings(principal="alice", principal_file=path)) as fleet,
        ):
            fleet.dispatcher.members()


def by_enrolling(broker: Address) -> None:
    token = tokens.new(broker_url=broker.url, broker_ca=broker.ca, fleet="f" * 43).text()
    joining.join(token, host="h1", version="test")


def _ask_by_kombu(app: Any) -> None:
    with (
        app.connection_for_write() as link,
        contextlib.closing(link.channel()) as channel,
        channel.conn_or_acquire() as c,
    ):
        c.ping()


WAYS = [
    by_redis,
    by_kombu_as_a_client,
    by_kombu_as_a_host,
    by_kombu_as_flower,
    by_the_result_backend,
    by_the_library,
    by_enrolling,
]
TRUSTED = [way for way in WAYS if way is not by_enrolling]  # for which a control worker would have to answer


@pytest.mark.parametrize("way", TRUSTED)
def test_every_way_to_a_broker_with_the_right_certificate_works(
    way: Callable[[Address], None], tls_broker: Broker
) -> None:
    way(tls_broker.address)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_told_to_an_impostor_on_any_way(
    way: Callable[[Address], None], impostor: Start, certificates: Certificates, other_certificates: Certificates
) -> None:
    listening = impostor(other_certificates.server("127.0.0.1"))
    _is_refused(way, listening, ca=certificates)


@pytest.mark.parametrize("wrong", ["name", "time", "authority of the system"])
def test_nothing_is_told_to_whoever_has_a_wrong_certificate(
    wrong: str, impostor: Start, certificates: Certificates
) -> None:
    names = ("broker.example", "127.0.0.2") if wrong == "name" else ("127.0.0.1",)
    listening = impostor(certificates.server(*names, expired=wrong == "time"))
    _is_refused(by_redis, listening, ca=None if wrong == "authority of the system" else certificates)


def _is_refused(way: Callable[[Address], None], listening: Impostor, *, ca: Certificates | None) -> None:
    broker = _at(listening, ca)
    with pytest.raises(errors.BrokerUntrusted) as caught, translated(broker):
        way(broker)
    assert PASSWORD not in str(caught.value)
    assert listening.connections >= 1
    assert listening.told == b""


def _at(listening: Impostor, ca: Certificates | None) -> Address:
    url = f"rediss://alice:{PASSWORD}@127.0.0.1:{listening.port}/0"
    return address.parse(url, ca=ca.ca.read_text() if ca else None)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_but_a_handshake_is_sent_to_a_broker_without_tls(
    way: Callable[[Address], None], impostor: Start, certificates: Certificates
) -> None:
    listening = impostor(None)
    broker = _at(listening, certificates)
    with pytest.raises(errors.BrokerUntrusted, match="it does not speak TLS on that port"), translated(broker):
        way(broker)
    assert listening.told.startswith(b"\x16\x03")
    assert PASSWORD.encode() not in listening.told
    assert b"fleet" not in listening.told


def test_an_impostor_that_is_trusted_would_be_told(impostor: Start, certificates: Certificates) -> None:
    """Or the tests above would prove nothing."""
    listening = impostor(certificates.server("127.0.0.1"))
    broker = _at(listening, certificates)
    with contextlib.suppress(errors.FleetError), translated(broker):
        by_redis(broker)
    assert PASSWORD.encode() in listening.told


def test_where_a_ca_is_named_the_systems_do_not_count(
    tls_broker: Broker, other_certificates: Certificates, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    broker = address.parse(tls_broker.url, ca=other_certificates.ca.read_text())
    with pytest.raises(errors.BrokerUntrusted), translated(broker):
        by_redis(broker)


def test_the_systems_cas_are_the_default(
    tls_broker: Broker, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    tls.context.cache_clear()
    try:
        by_redis(address.parse(tls_broker.url))
    finally:
        tls.context.cache_clear()


def test_plaintext_goes_to_this_machine_whatever_a_name_resolves_to() -> None:
    """As where a resolver takes `localhost` for another machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the route says which address is ours
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = str(probe.getsockname()[0])
    with socket.create_server((own, 0)) as listener:
        near = tls.LoopbackConnection(host=own, port=listener.getsockname()[1], password=PASSWORD)
        with pytest.raises(tls.Untrusted, match=f"{own} is another machine, and this is plaintext; write rediss://"):
            near.connect()
        far, _ = listener.accept()
        with far:
            assert far.recv(100) == b""
