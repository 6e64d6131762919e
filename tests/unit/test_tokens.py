"""Enrollment tokens as text."""

import base64

import pytest

from fleet import errors, tokens

URL = "redis://:pä55@broker.example:6379/0"


def test_a_token_reads_back_as_it_was_made() -> None:
    made = tokens.new(broker_url=URL)
    assert tokens.parse(f"  {made.text()}\n") == made
    prefix, public, secret, broker = made.text().split(".")
    assert (prefix, len(public), len(secret)) == ("fleet", 16, 43)
    assert "=" not in broker
    assert "pä55" not in made.text()


def test_no_two_tokens_are_alike_and_the_secret_has_256_bits() -> None:
    made = [tokens.new(broker_url=URL) for _ in range(100)]
    assert len({token.id for token in made}) == len({token.secret for token in made}) == 100
    assert all(len(base64.urlsafe_b64decode(token.secret + "=")) == 32 for token in made)


def test_the_secret_is_not_shown() -> None:
    made = tokens.new(broker_url=URL)
    assert made.secret not in repr(made)
    assert "pä55" not in repr(made)


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
        f"fleet.0123456789abcdef.{'s' * 42}.{encoded(URL)}",
        f"fleet.0123456789ABCDEF.{'s' * 43}.{encoded(URL)}",
        f"fleet.0123456789abcdef.{'s' * 43}.{encoded(URL)}.more",
        f"fleet.0123456789abcdef.{'s' * 43}.{encoded('http://broker')}",
        f"fleet.0123456789abcdef.{'s' * 43}.x",
        f"fleet.0123456789abcdef.{'s' * 43}.__79",
        f"fleet.0123456789abcdef.{'ｓ' * 43}.{encoded(URL)}",
        f"fleet.0123456789abcdef.{'s' * 43}.{encoded(URL)}\nfleet",
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
