"""A stream of what a run says: lines that were dropped before they came are in the count, at their place."""

import json
import time
from typing import Any

from workers.host.stream import Stream


def entries(stream: Stream) -> list[dict[str, Any]]:
    stream.prepared.clear()
    stream.prepare(time.monotonic())
    return [json.loads(text) for _number, text in stream.prepared]


def stream() -> Stream:
    return Stream("h1:1", 1, wake=lambda: None, now=lambda: 0.0)


def test_missed_lines_are_counted_where_they_are_missing() -> None:
    said = stream()
    said.say("stdout", "one\ntwo\n")
    said.miss(7, {})
    said.miss(3, {})
    said.say("stdout", "thirteen\n")
    first, second = entries(said)
    assert (first["before"], first["lines"]) == (0, 2)
    assert (second["before"], second["lines"]) == (12, 1)


def test_lines_that_are_missing_at_the_end_are_told_of_by_an_empty_entry() -> None:
    said = stream()
    said.say("stdout", "one\n")
    said.miss(5, {})
    _first, second = entries(said)
    assert (second["before"], second["lines"], second["data"]) == (6, 0, {"pieces": [["stdout", ""]]})
    assert not said._waiting
    said.say("stdout", "seven\n")
    assert entries(said)[0]["before"] == 6


def test_missed_lines_are_counted_also_where_what_waits_is_dropped() -> None:
    said = stream()
    said.miss(5, {})
    for _ in range(400):
        said.say("stdout", "x" * 999 + "\n")
    [first, *_rest] = entries(said)
    assert first["before"] > 5
    assert said._lines + len(said._waiting) == 405


def test_where_a_line_was_cut_is_told_of_each_stream_by_itself() -> None:
    said = stream()
    said.say("stdout", "one\ntw")
    said.say("stderr", "oh")
    [first] = entries(said)
    assert first["within"] == []
    said.miss(1, {"stdout": True})
    said.say("stdout", "ee\n")
    said.say("stderr", " no\n")
    [second] = entries(said)
    assert (second["within"], second["before"]) == (["stderr", "stdout"], 2)
    said.say("stdout", "fo")
    entries(said)
    said.miss(1, {"stdout": False})
    said.say("stdout", "six\n")
    assert entries(said)[0]["within"] == []


def test_a_part_of_a_long_line_that_is_dropped_is_a_line_that_is_missing() -> None:
    said = stream()
    said.say("stdout", "x" * 100_000)
    assert len(entries(said)) > 1
    said.say("stdout", "y" * 1_000_000)
    dropped, *rest = entries(said)
    assert (dropped["before"], dropped["lines"], dropped["within"]) == (1, 0, ["stdout"])
    assert {entry["before"] for entry in rest} == {1}
