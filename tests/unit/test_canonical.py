"""Canonical JSON: what may be stored, and the bytes that are hashed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import canonical

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(VALUES)
def test_a_plain_value_is_json_that_reads_back_as_itself(value: object) -> None:
    plain = canonical.plain(value)
    assert json.loads(canonical.encode(plain)) == plain
    assert canonical.plain(plain) == plain


def test_what_a_database_would_refuse_is_replaced() -> None:
    foreign = {"a\x00": "b\ud800", "n": float("nan"), "i": 10**30, "f": 1e16}
    assert canonical.plain(foreign) == {"a\ufffd": "b\ufffd", "n": "nan", "i": hex(10**30), "f": 10**16}


def test_the_bytes_do_not_depend_on_the_order_of_keys() -> None:
    assert canonical.encode({"b": 1, "a": "ü"}) == canonical.encode({"a": "ü", "b": 1}) == b'{"a":"\\u00fc","b":1}'


def test_what_is_no_json_value_is_refused() -> None:
    with pytest.raises(TypeError, match="set is no JSON value"):
        canonical.plain({"a": {1}})


@given(VALUES)
def test_what_others_wrote_is_read_as_it_is(value: object) -> None:
    plain = canonical.plain(value)
    assert canonical.read(json.dumps(plain)) == canonical.read(json.dumps(plain).encode()) == plain


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": 1, "b": {"c": 1, "c": 2}}',
        '[{"a": 1, "\\u0061": 2}]',
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        "",
        "{",
        "{'a': 1}",
        "[1,]",
        b"\xff",
    ],
)
def test_what_two_readers_could_take_for_different_values_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical.read(text)


def test_nesting_without_end_is_refused() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(RecursionError):
            canonical.read(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        canonical.read(text)
    except ValueError:
        return
    json.loads(text)
