"""Lines of runs as they are printed: whole, each to its stream, with a word about what is missing."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
import pytest

from fleet import names
from fleet.cli import lines
from fleet.cli.grammar import META
from fleet.cli.sizes import size
from fleet.client import Said

RUN, OTHER = names.new_run_id("edge-7"), names.new_run_id("a")


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:
    """The global options of the command line; a test may set some."""
    with click.Context(click.Command("fleet")) as context:
        yield context.meta


def said(*pieces: Any, **more: Any) -> Said:
    return entry("text", {"pieces": list(pieces)}, **more)


def entry(kind: str, data: Mapping[str, Any], *, run_id: str = RUN, attempt: int = 1, **more: Any) -> Said:
    return Said(run_id=run_id, host=names.host_of_run(run_id), attempt=attempt, kind=kind, data=data, at=1.0, **more)


def printed(capsys: pytest.CaptureFixture[str], *output: Said, hosts: tuple[str, ...] = ("edge-7",)) -> tuple[str, str]:
    lines.tell(output, hosts)
    found = capsys.readouterr()
    return found.out, found.err


@pytest.mark.usefixtures("options")
def test_a_line_is_printed_when_it_is_whole_and_on_the_stream_that_it_was_said_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = (said(["stdout", "on"], ["stderr", "oh\n"]), said(["stdout", "e\ntwo\r\nno "]), said(["stdout", "end"]))
    assert printed(capsys, *output) == ("one\ntwo\nno end\n", "oh\n")


@pytest.mark.usefixtures("options")
def test_several_hosts_stand_before_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output = (said(["stdout", "be"]), said(["stdout", "one\n"], run_id=OTHER, missed=1), said(["stdout", "gun\n"]))
    out, err = printed(capsys, *output, hosts=("edge-7", "a"))
    assert out == "a      | one\nedge-7 | begun\n"
    assert err == "a      | … 1 line was dropped here\n"


@pytest.mark.usefixtures("options")
def test_what_is_missing_stands_where_it_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, said(["stdout", "one\nbeg"]), said(["stdout", "two\n"], missed=1234))
    assert out == "one\nbeg…\ntwo\n"
    assert err == "… 1,234 lines were dropped here\n"


@pytest.mark.usefixtures("options")
def test_no_part_of_a_line_is_taken_for_a_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    first = said(["stdout", "one\n12"], ["stderr", "o"])
    second = said(["stdout", "56\nsix\n"], ["stderr", "h\n"], missed=3, within=("stdout", "stderr"))
    out, err = printed(capsys, first, second, said(["stdout", "7"]), said(["stdout", "8\n"], within=("stdout",)))
    assert out == "one\n12…\n…56\nsix\n78\n"
    assert err == "o…\n… 3 lines were dropped here\n…h\n"


@pytest.mark.usefixtures("options")
def test_what_could_not_be_followed_is_printed_by_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    printer = lines.Lines(["edge-7"])
    printer.follow([said(["stdout", "one\ntw"])])
    printer.complete(RUN, {"stdout": "one\ntwo\nthree", "stderr": "oh\n", "truncated": False})
    printer.finish()
    assert capsys.readouterr() == ("one\ntwo\nthree\n", "oh\n")


@pytest.mark.parametrize(("missed", "kept"), [(1, "whole"), (0, "cut")])
@pytest.mark.usefixtures("options")
def test_an_end_that_is_missing_is_told_of_where_nobody_knows_what_to_print(
    capsys: pytest.CaptureFixture[str], missed: int, kept: str
) -> None:
    reply = {"stdout": "one\ntwo\nthree\n", "truncated": kept == "cut"}
    printer = lines.Lines(["edge-7"])
    printer.follow([said(["stdout", "two\nth"], missed=missed)])
    printer.complete(RUN, reply)
    out, err = capsys.readouterr()
    assert out == "two\nth…\n"
    assert f"the end of what it wrote is missing here; `fleet audit session {RUN}` has it" in err
    printer.follow([said(["stdout", "one\ntwo\nthree\n"], missed=missed, attempt=2)])
    printer.complete(RUN, reply)
    assert "missing" not in capsys.readouterr().err


@pytest.mark.usefixtures("options")
def test_another_attempt_begins_with_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, said(["stdout", "beg"]), said(["stdout", "one\n"], attempt=2))[0] == "beg\none\n"


@pytest.mark.usefixtures("options")
def test_what_is_no_text_is_told_in_a_line_and_what_has_no_form_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    odd = [entry("text", data) for data in ({}, {"pieces": 7}, {"pieces": [7, ["stdout"], ["stdout", 7], [[], "x\n"]]})]
    assert (
        printed(capsys, entry("pull", {"percent": 50.0, "layers": [{}]}), *odd)[0]
        == "pull percent=50.0 layers=[1]\nx\n"
    )


@pytest.mark.usefixtures("options")
def test_a_line_without_end_fills_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    printer = lines.Lines(["edge-7"])
    for _ in range(100):
        printer.tell(said(["stdout", "x" * 100_000]))
        assert sum(map(len, printer._begun.values())) <= lines._LONGEST_LINE
    assert capsys.readouterr().out.count("x") > 8_000_000


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_programs_get_a_record_for_each_line_and_each_gap(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any], form: str
) -> None:
    options[f"{META}.format"] = form
    out, err = printed(
        capsys, said(["stderr", "one\x1b\n"]), said(["stdout", "two\n"], missed=3), entry("pull", {"a": 1})
    )
    assert err == ""
    empty = {"host": "edge-7", "stream": None, "line": None, "data": None, "dropped": None}
    assert [json.loads(line) for line in out.splitlines()] == [
        {**empty, "stream": "stderr", "line": "one\x1b"},
        {**empty, "dropped": 3},
        {**empty, "stream": "stdout", "line": "two"},
        {**empty, "stream": "stdout", "data": {"a": 1}},
    ]
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0B"),
        (999, "999B"),
        (1024, "1.0KiB"),
        (64 * 2**20, "64.0MiB"),
        (2**40, "1.0TiB"),
        (2**60, "1048576.0TiB"),
    ],
)
def test_sizes_are_short(count: int | None, text: str) -> None:
    assert size(count) == text
