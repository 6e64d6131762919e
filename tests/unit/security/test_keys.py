"""Keys: one spelling for each, and signatures that hold for one key, one purpose and these bytes alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors
from fleet.security import keys
from fleet.security.keys import KeyPair, Purpose, decode, encode, fingerprint, verify
from tests import factories

ALICE, BOB = factories.key("p:alice"), factories.key("p:bob")


def test_a_key_is_forty_three_characters_and_reads_back_as_it_was() -> None:
    made = KeyPair.generate()
    again = KeyPair.read(made.secret().get_secret_value())
    assert again.public == made.public
    assert len(made.public) == len(made.secret().get_secret_value()) == keys.KEY_CHARACTERS
    assert made.public != KeyPair.generate().public


def test_only_the_public_half_is_shown() -> None:
    private = ALICE.secret().get_secret_value()
    shown = f"{ALICE!r} {ALICE} {ALICE.secret()!r} {ALICE.secret()}"
    assert ALICE.public in shown
    assert private not in shown


@given(st.text() | st.from_regex(keys.PUBLIC_KEY).map(lambda text: text[:-2]))
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(errors.InvalidValue, match="is no Ed25519 key") as caught:
        KeyPair.read(text)
    assert len(text) < 8 or text not in str(caught.value)


@given(st.binary(), st.sampled_from(Purpose))
def test_a_signature_holds_for_its_key_its_purpose_and_its_bytes_alone(data: bytes, purpose: Purpose) -> None:
    signature = ALICE.sign(purpose, data)
    assert verify(ALICE.public, purpose, data, signature)
    assert not verify(BOB.public, purpose, data, signature)
    assert not verify(ALICE.public, purpose, data + b"\0", signature)
    assert not any(verify(ALICE.public, other, data, signature) for other in Purpose if other is not purpose)


@given(st.integers(0, 63), st.integers(1, 255))
def test_no_byte_of_a_signature_can_be_another(place: int, change: int) -> None:
    signature = bytearray(decode(ALICE.sign(Purpose.RESULT, b"x")))
    signature[place] ^= change
    assert not verify(ALICE.public, Purpose.RESULT, b"x", encode(bytes(signature)))


@given(st.text(), st.text())
def test_foreign_text_is_no_signature_and_no_error(public: str, signature: str) -> None:
    assert not verify(public, Purpose.RESULT, b"x", ALICE.sign(Purpose.RESULT, b"x"))
    assert not verify(ALICE.public, Purpose.RESULT, b"x", signature)


def test_purposes_and_bytes_do_not_run_into_each_other() -> None:
    """Otherwise bytes could be moved from the data into the name of the purpose."""
    assert len({(purpose.value + "\0").encode() for purpose in Purpose}) == len(Purpose)
    assert not any("\0" in purpose.value for purpose in Purpose)


@given(st.binary())
def test_bytes_come_back_from_their_text(data: bytes) -> None:
    assert decode(encode(data)) == data
    assert set(encode(data)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text(alphabet="AQgw-_=+/ \n\xe4") | st.text())
def test_a_text_that_is_read_is_the_only_spelling_of_its_bytes(text: str) -> None:
    try:
        data = decode(text)
    except ValueError:
        return
    assert encode(data) == text


@pytest.mark.parametrize("text", ["QQ==", "QR", "Q", "Q Q", "QQ\n", "+/", "ＱＱ"])
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64url|shortest"):
        decode(text)


def test_a_fingerprint_names_one_key() -> None:
    assert fingerprint(ALICE.public) == fingerprint(ALICE.public) != fingerprint(BOB.public)
    assert len(fingerprint(ALICE.public)) == 43
    assert ALICE.public not in fingerprint(ALICE.public)
