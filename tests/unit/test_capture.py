"""Capture: whatever is written, all of it is counted, and what is kept of it is its beginning and its end."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.contracts.shell import KEPT_BYTES, LARGEST_REPLY, CommandResult
from fleet.contracts.verdicts import RECORDED_CHARACTERS
from workers.host import outcomes
from workers.host.capture import Capture
from workers.host.spool import Ending


def captured(*pieces: tuple[str, bytes]) -> CommandResult:
    capture = Capture(())
    for name, data in pieces:
        assert capture.add(name, data) == data
    written, kept = capture.finish()
    assert len(kept) <= KEPT_BYTES
    return outcomes.result(Ending("exited", 1.0, exit_status=0, written=written), kept)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("stdout", "stderr")), st.binary(max_size=3000)), max_size=30))
def test_little_output_is_kept_as_it_is(pieces: list[tuple[str, bytes]]) -> None:
    said = captured(*pieces)
    for name in ("stdout", "stderr"):
        whole = b"".join(data for of, data in pieces if of == name)
        assert getattr(said, name) == whole.decode(errors="replace")
        assert getattr(said, f"{name}_bytes") == len(whole)
        assert getattr(said, f"{name}_sha256") == hashlib.sha256(whole).hexdigest()
    assert not said.truncated


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("stdout", "stderr")),
            st.sampled_from(("x", "ü", "\U0001f600", "\0", "\n")),
            st.integers(0, 700_000),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_of_much_output_the_beginning_and_the_end_are_kept_in_whole_characters(
    pieces: list[tuple[str, str, int]],
) -> None:
    said = captured(*((name, (text * count).encode()) for name, text, count in pieces))
    assert len(json.dumps(said.model_dump(mode="json"))) <= LARGEST_REPLY
    for name in ("stdout", "stderr"):
        whole = "".join(text * count for of, text, count in pieces if of == name)
        text = getattr(said, name)
        assert "\ufffd" not in text
        head, left_out, tail = text.partition(" bytes left out …\n")
        if left_out:
            assert said.truncated
            head = head.rpartition("\n… ")[0]
            assert whole.startswith(head)
            assert whole.endswith(tail)
            assert head
            assert tail
        else:
            assert text == whole


def test_a_disk_that_lost_what_was_kept_is_told_of() -> None:
    capture = Capture(())
    capture.add("stdout", b"x" * 100)
    written, kept = capture.finish()
    said = outcomes.result(Ending("exited", 1.0, exit_status=0, written=written), kept[:50])
    assert (said.truncated, said.stdout_bytes) == (True, 100)


@pytest.mark.parametrize("length", [0, RECORDED_CHARACTERS, RECORDED_CHARACTERS + 1, 10**6])
def test_the_record_keeps_less_and_says_so(length: int) -> None:
    text = outcomes.shortened("x" * length)
    assert len(text) <= RECORDED_CHARACTERS + 100
    assert (text == "x" * length) == (length <= RECORDED_CHARACTERS)


def test_secrets_are_masked_also_where_two_writes_cut_them() -> None:
    capture = Capture([b"hunter2-hunter2"])
    shown = capture.add("stdout", b"it is hunter2-") + capture.add("stdout", b"hunter2, ok") + capture.end("stdout")
    written, kept = capture.finish()
    assert shown == kept == b"it is ***, ok"
    assert written["stdout"].total == len(shown)
