"""What somebody reads whose broker cannot be reached by TLS: one line that says what is wrong, and what to do."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from fleet import credentials, tokens
from fleet.certificates import main
from fleet.contracts.credentials import HostCredential
from tests import factories
from tests.integration.cli.conftest import Cli
from tests.services.broker import Broker
from tests.services.ports import free_port
from tests.services.tls import Certificates, redis_server

#: A command that talks to the broker first.
TALKS = ("token", "create")
PLAINTEXT = "redis://:hunter2@broker.example:6379/0"
REFUSED = (
    "FLEET_BROKER_URL: 'redis://:***@broker.example:6379/0': it would send everything in plaintext to another machine; "
    "write rediss://…, to a port where the broker has TLS; FLEET_BROKER_CA names its CA, if that is your own; "
    "fleet.example.toml explains the settings"
)

Serve = Callable[..., Broker]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts a Redis with a certificate, or with none."""
    started: list[Broker] = []

    def start(certificate: Path | None = None) -> Broker:
        directory = tmp_path / f"redis-{len(started)}"
        directory.mkdir()
        started.append(Broker(redis_server(), directory, free_port(), certificate=certificate))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop(kill=True)


@pytest.mark.parametrize(
    "words",
    [
        ("ps",),
        ("push-task", "fleet.host.ping", "--all"),
        ("host", "list"),
        ("control",),
        ("flower",),
        ("token", "create"),
        ("health", "control"),
        ("worker", "--host-id", "h1"),
    ],
    ids=" ".join,
)
def test_plaintext_to_another_machine_is_refused_everywhere(bare: Cli, words: tuple[str, ...]) -> None:
    done = bare(*words, FLEET_BROKER_URL=PLAINTEXT)
    assert done.code == 2
    assert done.error == f"fleet: error: {REFUSED}"


def test_the_doctor_finds_it(bare: Cli) -> None:
    done = bare("doctor", FLEET_BROKER_URL=PLAINTEXT)
    assert done.code == 1
    assert "it would send everything in plaintext to another machine" in done.out


def test_a_host_takes_no_such_address_from_a_token_a_flag_or_a_credential(bare: Cli) -> None:
    token = tokens.new(broker_url=PLAINTEXT, fleet="f" * 43).text()
    for words in (("enroll", token), ("worker", "--token", token)):
        done = bare(*words, "--host-id", "h1")
        assert done.code == 2
        assert "would send everything in plaintext to another machine" in done.error
    fine = tokens.new(broker_url="rediss://broker.example", fleet="f" * 43).text()
    done = bare("enroll", fine, "--host-id", "h1", "--broker-url", PLAINTEXT)
    assert done.code == 2
    user = f"join-{tokens.parse(fine).id}"
    assert f"--broker-url: 'redis://{user}:***@broker.example:6379/0' would send everything in plaintext" in done.error
    path = Path(bare.environment["FLEET_STATE_DIR"]) / "hosts" / "h1" / "credential.json"
    held = HostCredential(
        host="h1",
        broker_url=SecretStr(PLAINTEXT),
        private_key=factories.key("h1").secret(),
        credential=factories.ring().issue(factories.identity("h1")),
        trust=factories.statement(),
        enrolled_at=datetime.now(UTC),
    )
    credentials.save(path, held)
    done = bare("worker", "--host-id", "h1")
    assert done.code == 4
    assert f"credential {path}: broker_url: 'redis://:***@broker.example:6379/0' would send everything" in done.error
    assert "then enroll again with --force" in done.error


def test_there_is_no_setting_that_switches_verification_off(bare: Cli, tls_broker: Broker) -> None:
    for query in ("ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_ca_certs=/etc/passwd"):
        done = bare("ps", FLEET_BROKER_URL=f"{tls_broker.url}?{query}")
        assert done.code == 2
        assert f"has options after the ? ({query.partition('=')[0]}); leave it out" in done.error


@pytest.mark.parametrize("command", [("token", "create"), ("flower",), ("control",)], ids=" ".join)
def test_a_ca_that_is_not_the_brokers(
    bare: Cli, tls_broker: Broker, other_certificates: Certificates, command: tuple[str, ...]
) -> None:
    done = bare(*command, FLEET_BROKER_URL=tls_broker.url, FLEET_BROKER_CA=str(other_certificates.ca))
    assert done.code == 5
    assert (
        f"the broker at {tls_broker.url} is not trusted: its certificate is of a CA that is not trusted here"
        in done.error
    )
    assert "the CA that counts is FLEET_BROKER_CA" in done.error


def test_no_ca_where_the_system_knows_none_of_it(bare: Cli, tls_broker: Broker) -> None:
    done = bare(*TALKS, FLEET_BROKER_URL=tls_broker.url)
    assert done.code == 5
    assert "set FLEET_BROKER_CA to the certificate (PEM) of the CA that signed it" in done.error


def test_a_certificate_for_another_name(bare: Cli, serve: Serve, certificates: Certificates) -> None:
    broker = serve(certificates.server("broker.example"))
    done = bare(*TALKS, FLEET_BROKER_URL=broker.url, FLEET_BROKER_CA=str(certificates.ca))
    assert done.code == 5
    assert "its certificate is not for '127.0.0.1'; write the name that the certificate is for" in done.error


def test_a_certificate_that_has_expired(bare: Cli, serve: Serve, certificates: Certificates) -> None:
    broker = serve(certificates.server("127.0.0.1", expired=True))
    done = bare(*TALKS, FLEET_BROKER_URL=broker.url, FLEET_BROKER_CA=str(certificates.ca))
    assert done.code == 5
    assert "its certificate has expired; give the broker a new one, or set this machine's clock right" in done.error


def test_a_broker_without_tls_on_a_url_that_says_tls(bare: Cli, serve: Serve, certificates: Certificates) -> None:
    url = serve().url.replace("redis://", "rediss://")
    done = bare(*TALKS, FLEET_BROKER_URL=url, FLEET_BROKER_CA=str(certificates.ca))
    assert done.code == 5
    assert "it does not answer in the TLS handshake); is it running, and is that its TLS port" in done.error


def test_a_broker_with_tls_on_a_url_that_does_not_say_so(bare: Cli, tls_broker: Broker) -> None:
    done = bare(*TALKS, FLEET_BROKER_URL=tls_broker.url.replace("rediss://", "redis://"))
    assert done.code == 5
    assert (
        "it hangs up without an answer); is it running, and without TLS on that port? for TLS write rediss"
        in done.error
    )


def test_a_broker_that_wants_certificates_of_its_clients(bare: Cli, serve: Serve, certificates: Certificates) -> None:
    broker = serve(certificates.server("127.0.0.1"))
    broker.ca = certificates.ca
    with broker.connect() as client:
        client.config_set("tls-ca-cert-file", str(certificates.ca))
        client.config_set("tls-auth-clients", "yes")
    for url in (broker.url, broker.url.replace("//", "//:hunter2@")):
        done = bare(*TALKS, FLEET_BROKER_URL=url, FLEET_BROKER_CA=str(certificates.ca))
        assert done.code == 5
        assert "set `tls-auth-clients no` there" in done.error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("hello", "has no certificate in it"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "has a certificate in it that cannot be read",
        ),
    ],
)
def test_a_ca_file_that_is_none_is_named_by_every_command(
    bare: Cli, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    for words in (("ps",), ("control",), ("token", "list")):
        done = bare(*words, FLEET_BROKER_URL="rediss://broker.example", FLEET_BROKER_CA=str(path))
        assert done.code == 2
        assert (
            f"FLEET_BROKER_CA: '{path}' {said}; name the file with the certificate of the broker's CA (PEM)"
            in done.error
        )


def test_a_servers_certificate_is_no_ca(bare: Cli, certificates: Certificates) -> None:
    done = bare("ps", FLEET_BROKER_URL="rediss://b.example", FLEET_BROKER_CA=str(certificates.server("b.example")))
    assert done.code == 2
    assert "has a certificate in it that is no CA's" in done.error


def test_the_doctor_says_until_when_the_certificate_is_good(
    bare: Cli, tls_broker: Broker, serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    done = bare("doctor", FLEET_BROKER_URL=tls_broker.url, FLEET_BROKER_CA=str(certificates.ca))
    assert re.search(r"warn\s+certificate\s+the broker's is good until 20", done.out), done.out
    assert "give the broker a new one in time: afterwards nobody connects" in done.out
    assert main([str(tmp_path / "made"), "127.0.0.1"]) == 0
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "made" / "server.pem").read_bytes() + (tmp_path / "made" / "server.key").read_bytes())
    ca = str(tmp_path / "made" / "ca.pem")
    done = bare("doctor", FLEET_BROKER_URL=serve(both).url, FLEET_BROKER_CA=ca)
    assert re.search(r"ok\s+certificate\s+the broker's is good until 20", done.out), done.out
