"""Masking: no usual form of a secret survives, and a stream is masked the same however it is cut."""

import base64
import json
import os
import textwrap
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.masking import MASK, Masker, mask_text

#: Without `*`, so that a mask is never part of a secret.
CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="*")
TEXTS = st.text(CHARACTERS, min_size=2, max_size=60).filter(lambda text: len(text.strip().encode().strip()) >= 6)
BYTES = st.binary(min_size=6, max_size=60).map(lambda value: value.replace(b"*", b"+"))
VALUES = st.one_of(TEXTS.map(str.encode), BYTES.filter(lambda value: len(value.strip()) >= 6))


def forms(value: bytes, before: bytes = b"", after: bytes = b"") -> dict[str, bytes]:
    """Return the forms in which a program may write a value that stands between others."""
    found = {
        "raw": value,
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "base64": base64.b64encode(before + value + after),
        "base64url": base64.urlsafe_b64encode(before + value + after),
        "base64 unpadded": base64.b64encode(before + value + after).rstrip(b"="),
        "base64 in lines": base64.encodebytes(before + value + after),
        "percent": quote(value, safe="").encode(),
    }
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return found
    return found | {
        "path": quote(text).encode(),
        "form": quote_plus(text).encode(),
        "JSON": json.dumps(text)[1:-1].encode(),
        "JSON as UTF-8": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        "JSON with \\/": json.dumps(text)[1:-1].replace("/", "\\/").encode(),
    }


@settings(deadline=None)
@given(VALUES, st.binary(max_size=80), st.binary(max_size=80))
def test_no_form_of_a_secret_survives(value: bytes, before: bytes, after: bytes) -> None:
    masker = Masker([value])
    for name, form in forms(value.strip(), before, after).items():
        masked = masker.mask(b"said " + form + b" so")
        assert MASK in masked, name
        if not name.startswith("base64"):
            assert masked == b"said *** so", name


@settings(deadline=None)
@given(st.sets(st.integers(33, 255), min_size=6), st.integers(0, 80), st.integers(0, 80))
def test_of_base64_no_character_is_left_that_holds_bits_of_the_secret(value: set[int], before: int, after: int) -> None:
    encoded = base64.b64encode(bytes(before) + bytes(value) + bytes(after))
    head, _, tail = Masker([bytes(value)]).mask(encoded).partition(MASK)
    assert head == encoded[: 8 * before // 6]
    assert tail in {b"", encoded[-(-8 * (before + len(value)) // 6) :]}


@settings(deadline=None)
@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.lists(
        st.one_of(st.binary(max_size=40), st.tuples(st.integers(0, 3), st.integers(0, 12), st.binary(max_size=5))),
        max_size=12,
    ),
    st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=12),
)
def test_any_split_of_a_stream_gives_the_same_as_the_whole_also_where_it_pauses(
    values: list[bytes], parts: "list[bytes | tuple[int, int, bytes]]", cuts: list[tuple[int, bool]]
) -> None:
    text = b""
    for part in parts:
        if isinstance(part, tuple):
            which = list(forms(values[part[0] % len(values)].strip(), part[2]).values())
            text += which[part[1] % len(which)]
        else:
            text += part
    masker = Masker(values)
    places = sorted({min(cut, len(text)) for cut, _pauses in cuts} | {0, len(text)})
    pauses = {min(cut, len(text)) for cut, pauses in cuts if pauses}
    stream = masker.stream()
    pieces = []
    for start, end in pairwise(places):
        pieces.append(stream.feed(text[start:end]))
        if end in pauses:
            pieces.append(stream.settle())
    assert b"".join(pieces) + stream.flush() == masker.mask(text)


@settings(deadline=None)
@given(VALUES, st.integers(1, 7))
def test_a_secret_that_comes_in_small_pieces_is_never_passed_on_however_slowly(value: bytes, size: int) -> None:
    stream = Masker([value]).stream()
    for form in forms(value.strip()).values():
        text = b"before " + form + b" after "
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        assert form not in b"".join(stream.feed(piece) + stream.settle() for piece in pieces) + stream.flush()


def test_what_cannot_be_a_secret_is_passed_on_at_once() -> None:
    stream = Masker(["hunter2-and-more", "9XBe3-uYd_w8Qz7LrT0pVn2KsMf4GhJ5aCxE1bD6iOo"]).stream()
    for line in (b"1 of 3 done\n", b"2 of 3 done ...", b"Password: "):
        assert stream.feed(line) == line
    assert stream.feed(b"it is hunter2-an") == b"it is "
    assert stream.feed(b"d-less") + stream.flush() == b"hunter2-and-less"


@pytest.mark.parametrize("odd", ["\\", "\U0001d7d8", "é", "/", "\n"])
def test_many_odd_characters_are_no_puzzle(odd: str) -> None:
    value = odd * 60 + "secret" + odd * 60
    value = f"x{value}x"
    masker = Masker([value])
    for written in (value, json.dumps(value)[1:-1], quote(value, safe="")):
        assert masker.text(f"a {written} b") == "a *** b"
    stream = masker.stream()
    almost = json.dumps(value)[1:-2].encode() + b"y"
    assert b"".join(stream.feed(bytes((each,))) for each in almost) + stream.flush() == almost


def test_of_two_secrets_that_begin_alike_the_longer_one_leaves_nothing() -> None:
    assert mask_text("a hunter2-long, a hunter2", ["hunter2", "hunter2-long"]) == "a ***, a ***"


def test_short_values_and_the_white_space_around_others_are_no_secrets() -> None:
    assert mask_text("abcde abcde", ["abcde", "", "  \n"]) == "abcde abcde"
    assert mask_text("a=hunter2;", ["hunter2\n"]) == "a=***;"
    assert not Masker(["short"])


def test_a_long_secret_is_found_in_base64_that_is_broken_into_lines() -> None:
    value = b"(" + os.urandom(698) + b")"  # white space around a value is no part of it
    text = base64.b64encode(b"x" + value)
    for width in (60, 64, 70, 76):
        lines = "\r\n".join(textwrap.wrap(text.decode(), width)).encode()
        assert Masker([value]).mask(lines) == text[:1] + MASK


def test_half_of_a_surrogate_pair_does_no_harm() -> None:
    assert mask_text("\ud800 hunter2 \udfff", ["hunter2"]) == "\ud800 *** \udfff"


def test_what_cannot_be_a_secret_is_let_go_of_when_nothing_comes_for_a_while() -> None:
    masker = Masker(["tango-password", KEY])
    stream = masker.stream()
    first = stream.feed(b"first\nlast tang")
    assert first + stream.settle() == b"first\nlast "
    assert stream.feed(b"o-password\n") + stream.settle() == b"***\n"
    second = stream.feed(b"t\n")
    assert second != b"t\n"
    assert second + stream.settle() == b"t\n"
    for ordinary in (b"tan\n", b"Password: ", b"a tango\n", b"-----\n", b"100 %\r", b"\x1b[1mready?\x1b[0m"):
        assert stream.feed(ordinary) + stream.settle() == ordinary
    assert stream.flush() == b""


#: A secret of several lines, as programs write it: one after the other.
KEY = "-----BEGIN PRIVATE KEY-----\n" + textwrap.fill("x9K+/" * 60, 64) + "\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("name", ["raw", "base64", "base64 in lines"])
def test_a_secret_of_several_lines_is_masked_however_long_it_pauses_between_them(name: str) -> None:
    masker = Masker([KEY])
    text = b"the key:\n" + forms(KEY.strip().encode(), b"more of it")[name].rstrip() + b"\nthat was it\n"
    stream = masker.stream()
    passed = b"".join(stream.feed(line) + stream.settle() for line in text.splitlines(keepends=True))
    assert passed.startswith(b"the key:\n")
    assert passed + stream.flush() == masker.mask(text)
    assert passed.endswith(b"***\nthat was it\n")


def test_what_is_no_secret_after_all_comes_whole_when_that_is_seen() -> None:
    lines = KEY.splitlines(keepends=True)
    stream = Masker([KEY]).stream()
    assert b"".join(stream.feed(line.encode()) + stream.settle() for line in lines[:3]) == b""
    assert stream.feed(b"no key\n") + stream.settle() == "".join((*lines[:3], "no key\n")).encode()


def test_a_secret_that_ends_where_another_one_begins_leaves_the_other_one_to_come() -> None:
    masker = Masker(["abcabc123", "c123-secret", "tango-password"])
    stream = masker.stream()
    assert stream.feed(b"abcabc123") + stream.settle() == b"***"
    assert stream.feed(b"-secret tang") + stream.settle() == b"-secret "
    assert stream.feed(b"o-password") + stream.settle() + stream.flush() == b"***"
