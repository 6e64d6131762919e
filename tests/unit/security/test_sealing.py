"""Sealing: only one reader can open, and what was changed under way opens for nobody."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.security import sealing
from fleet.security.keys import decode, encode
from fleet.security.sealing import Opener
from tests import factories

READER = Opener.of(factories.key("fleet"), purpose="tests")
SEALED = sealing.seal(b"the secret", READER.public)


@given(st.binary())
def test_what_is_sealed_opens_for_its_reader_alone(data: bytes) -> None:
    sealed = sealing.seal(data, READER.public)
    assert READER.open(sealed) == data
    with pytest.raises(ValueError, match="not sealed to this reader"):
        Opener.generate().open(sealed)


def test_an_opener_follows_from_its_key_and_its_purpose() -> None:
    assert Opener.of(factories.key("fleet"), purpose="tests").public == READER.public
    assert Opener.of(factories.key("fleet"), purpose="others").public != READER.public
    assert Opener.of(factories.key("another"), purpose="tests").public != READER.public
    assert READER.public != factories.key("fleet").public


def test_the_same_sealed_twice_looks_different() -> None:
    assert sealing.seal(b"x", READER.public) != sealing.seal(b"x", READER.public)


def test_threads_that_seal_at_the_same_time_do_not_disturb_each_other() -> None:
    readers = [Opener.generate() for _ in range(8)]

    def there_and_back(number: int) -> bool:
        reader, text = readers[number % 8], str(number).encode()
        return reader.open(sealing.seal(text, reader.public)) == text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(400)))


@given(st.data())
def test_no_character_of_it_can_be_another(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(SEALED) - 1))
    other = data.draw(st.characters().filter(lambda character: character != SEALED[place]))
    try:
        found = READER.open(SEALED[:place] + other + SEALED[place + 1 :])
    except ValueError:
        return
    assert found == b"the secret", "base64 has bits to spare at its end, which mean nothing"


@given(st.text() | st.lists(st.text(alphabet="eyJ0.-_="), min_size=5, max_size=5).map(".".join))
def test_foreign_text_is_a_value_error(sealed: str) -> None:
    with pytest.raises(ValueError, match="not sealed"):
        READER.open(sealed)


@pytest.mark.parametrize(
    "changed",
    [
        {"alg": "dir"},
        {"alg": "none"},
        {"alg": "ECDH-ES+A256KW"},
        {"alg": []},
        {"enc": "A128GCM"},
        {"enc": []},
        {"zip": "DEF"},
        {"crit": 1},
        {"apu": 1},
        {"epk": {}},
        {"epk": 1},
        {"epk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}},
        {"epk": {"kty": "OKP", "crv": "X25519", "x": "A" * 43}},
        {"epk": {"kty": "OKP", "crv": "Ed25519", "x": factories.key("fleet").public}},
        {"epk": {"kty": []}},
    ],
    ids=repr,
)
def test_by_another_header_nothing_opens(changed: dict[str, object]) -> None:
    header, *rest = SEALED.split(".")
    other = encode(json.dumps({**json.loads(decode(header)), **changed}).encode())
    with pytest.raises(ValueError, match="not sealed"):
        READER.open(".".join([other, *rest]))


@pytest.mark.parametrize("public", ["", "x", "A" * 43, "ä" * 43, factories.key("fleet").public + "A"])
def test_nothing_is_sealed_to_what_is_no_key_or_everybodys(public: str) -> None:
    with pytest.raises(ValueError, match="not an X25519 key"):
        sealing.seal(b"x", public)
