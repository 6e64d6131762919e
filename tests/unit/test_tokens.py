"""Enrollment tokens as text."""

import base64

import pytest
import trustme

from fleet import errors, tokens
from fleet.security.keys import fingerprint
from tests import factories

URL = "rediss://broker.example:6379/0"
FLEET = fingerprint(factories.key("fleet").public)


def test_a_token_reads_back_as_it_was_made() -> None:
    made = tokens.new(broker_url=URL, fleet=FLEET)
    assert tokens.parse(f"  {made.text()}\n") == made
    prefix, public, secret, fleet, broker = made.text().split(".")
    assert (prefix, len(public), len(secret)) == ("fleet", 16, 43)
    assert fleet == FLEET, "the joiner recognises the control plane by it"
    assert "=" not in broker


def test_no_two_tokens_are_alike_and_the_secret_has_256_bits() -> None:
    made = [tokens.new(broker_url=URL, fleet=FLEET) for _ in range(100)]
    assert len({token.id for token in made}) == len({token.secret for token in made}) == 100
    assert all(len(base64.urlsafe_b64decode(token.secret + "=")) == 32 for token in made)


def test_the_secret_is_not_shown() -> None:
    made = tokens.new(broker_url=URL, fleet=FLEET)
    assert made.secret not in repr(made)


def test_the_brokers_password_follows_from_the_secret_and_does_not_give_it_away() -> None:
    made = tokens.new(broker_url=URL, fleet=FLEET)
    assert made.broker_password() == tokens.broker_password(made.secret)
    assert made.secret not in made.broker_password()
    assert made.broker_password() != tokens.hash_secret(made.secret), "what the database has is no password"


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fleet",
        "fleet...",
        "fleet.0123456789abcdef",
        f"fleet.0123456789abcdef.{'s' * 43}",
        f"fleet.0123456789abcdef.{'s' * 43}.",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}.",
        f"fleet.0123456789abcdef.{'s' * 43}.{encoded(URL)}",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET[:-1]}.{encoded(URL)}",
        f"fleet.0123456789abcdef.{'s' * 42}.{FLEET}.{encoded(URL)}",
        f"fleet.0123456789ABCDEF.{'s' * 43}.{FLEET}.{encoded(URL)}",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}.{encoded(URL)}.more",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}.{encoded(URL)}..",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}.{encoded('http://broker')}",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}.x",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}.__79",
        f"fleet.0123456789abcdef.{'ｓ' * 43}.{FLEET}.{encoded(URL)}",
        f"fleet.0123456789abcdef.{'s' * 43}.{FLEET}.{encoded(URL)}\nfleet",
        "x" * 100_000,
    ],
)
def test_what_is_no_token_is_refused_in_one_line_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        tokens.parse(text)
    said = str(caught.value)
    assert "is not an enrollment token; copy it whole" in said
    assert "s" * 20 not in said
    assert "\n" not in said
    assert len(said) < 200


def test_a_token_carries_the_brokers_ca_as_its_last_part() -> None:
    ca = trustme.CA().cert_pem.bytes().decode()
    made = tokens.new(broker_url=URL, fleet=FLEET, broker_ca=ca)
    assert tokens.parse(made.text()) == made
    assert made.broker_ca == ca
    assert made.text().startswith(tokens.Token(made.id, made.secret, FLEET, URL).text() + ".")
    assert len(made.text()) < 1000
    assert "CERTIFICATE" not in repr(made)


@pytest.mark.parametrize("ca", ["", "x", "____", encoded("no certificate"), "MIIB"])
def test_a_token_with_anything_else_there_is_refused(ca: str) -> None:
    with pytest.raises(errors.InvalidValue, match="is not an enrollment token"):
        tokens.parse(f"{tokens.new(broker_url=URL, fleet=FLEET).text()}.{ca}")


def test_a_certificate_that_is_no_ca_is_refused_there() -> None:
    server = trustme.CA().issue_cert("broker.example").cert_chain_pems[0].bytes().decode()
    with pytest.raises(errors.InvalidValue, match="is not an enrollment token"):
        tokens.parse(tokens.new(broker_url=URL, fleet=FLEET, broker_ca=server).text())
