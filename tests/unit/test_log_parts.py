"""Logs in the Engine's form: parts of lines, cut anywhere on their way, and times of lines."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors
from tests.services.runs import KeptRun
from workers.host.containers.following import Part, Teller, _just_after, parts

AT = "2026-01-02T03:04:05.000000001Z"
LATER = "2026-01-02T03:04:05.000000002Z"


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    for begin, end in pairwise(edges):
        yield data[begin:end]


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=10),
    st.lists(st.integers(0, 10_000), max_size=20),
)
def test_parts_are_the_same_wherever_their_bytes_were_cut(said: list[tuple[int, bytes]], places: list[int]) -> None:
    data = b"".join(frame(stream, f"{AT} ".encode() + payload) for stream, payload in said)
    expected = [Part({1: "stdout", 2: "stderr"}[stream], AT, payload) for stream, payload in said]
    assert list(parts(cut(data, places), terminal=False)) == expected


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_a_terminals_lines_are_the_same_wherever_they_were_cut(places: list[int]) -> None:
    data = f"{AT} one\r\n{AT} two\r\n{LATER} no end".encode()
    assert list(parts(cut(data, places), terminal=True)) == [
        Part("stdout", AT, b"one\r\n"),
        Part("stdout", AT, b"two\r\n"),
        Part("stdout", LATER, b"no end"),
    ]


@pytest.mark.parametrize("payload", [b"", b"no time", b"2026-01-02T03:04:05.0Zno space", b"Z x", b"\xff\xff\xff\xff x"])
def test_what_has_no_time_is_text_all_the_same(payload: bytes) -> None:
    assert list(parts([frame(1, payload)], terminal=False)) == [Part("stdout", "", payload)]


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK", frame(9, b"x"), b"\x01\x00\x00\x00\xff\xff\xff\xff"])
def test_what_no_engine_says_is_not_read(data: bytes) -> None:
    with pytest.raises(errors.EngineUnavailable, match="does not speak as one"):
        list(parts([data], terminal=False))


def test_a_terminal_that_never_ends_a_line_fills_no_memory() -> None:
    found = list(parts((b"x" * 100_000 for _ in range(30)), terminal=True))
    assert len(found) == 3
    assert sum(len(part.text) for part in found) == 3_000_000


def told(*said: Part, timestamps: bool = False) -> tuple[str, int]:
    run = KeptRun()
    teller = Teller(run, timestamps=timestamps, patiently=True)
    for part in said:
        teller.tell(part)
    return run.text(), teller.lines


def test_a_letter_that_is_cut_in_two_is_one() -> None:
    letter = "ä".encode()
    parts_ = (Part("stdout", AT, letter[:1]), Part("stderr", AT, b"oh\n"), Part("stdout", AT, letter[1:] + b"\n"))
    assert told(*parts_) == ("oh\nä\n", 2)


def test_parts_of_one_line_have_one_time_and_a_line_without_an_end_gets_one_before_the_next() -> None:
    said = (
        Part("stdout", AT, b"lo"),
        Part("stdout", AT, b"ng\n"),
        Part("stdout", AT, b"no"),
        Part("stdout", LATER, b"x\n"),
    )
    assert told(*said) == ("long\nno\nx\n", 3)
    assert told(*said, timestamps=True) == (f"{AT} long\n{AT} no\n{LATER} x\n", 3)


@pytest.mark.parametrize(
    ("moment", "after"),
    [
        ("2026-01-02T03:04:05.000000001Z", "1767323045.000000002"),
        ("2026-01-02T03:04:05.999999999Z", "1767323046.000000000"),
        ("2026-01-02T03:04:05Z", "1767323045.000000001"),
        ("2026-01-02T03:04:05.5Z", "1767323045.500000001"),
    ],
)
def test_the_nanosecond_after_a_line(moment: str, after: str) -> None:
    assert _just_after(moment) == after
