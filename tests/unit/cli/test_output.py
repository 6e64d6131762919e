"""What is printed: safe for a terminal, and of one shape for programs; and the exit code of several hosts."""

import json
from datetime import UTC, datetime
from typing import Any

import click
import pytest
import yaml

from fleet import errors
from fleet.cli import failures, outcomes, plain, steps

EVIL = "web\x1b]52;c;QUFB\x07\x9b31m\u202eexe\ud800\x7f\n2"


def test_json_reads_back_and_is_plain_ascii() -> None:
    value = {"name": EVIL, "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "ports": (1, 2)}
    text = plain.as_json(value)
    assert all(" " <= character <= "~" for character in text)
    assert json.loads(text) == {"name": EVIL, "at": "2026-01-02T03:04:05Z", "ports": [1, 2]}


def test_yaml_reads_back_and_is_safe_for_a_terminal() -> None:
    name = EVIL.replace("\ud800", "")
    text = plain.as_yaml({"name": name})
    assert all(" " <= character <= "~" or character == "\n" for character in text)
    assert yaml.safe_load(text) == {"name": name}
    assert plain.as_yaml("a") == "a\n"


def test_an_event_in_one_line_cannot_become_two() -> None:
    event = {
        "occurred_at": "2026-01-02T03:04:05+00:00",
        "host": "edge-7",
        "actor": "edge-7",
        "event": "run.progressed",
        "data": {"step": EVIL, "empty": None, "list": [1, 2]},
    }
    line = steps.line(event)
    assert "run.progressed" in line
    assert "list=[2]" in line
    assert all(character.isprintable() for character in line)


def run(code: int) -> dict[str, Any]:
    return {"error": {"code": "x", "message": "x", "exit_code": code} if code else None}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0], 0), ([1], 1), ([4], 4), ([0, 0], 0), ([1, 1], 1), ([0, 1], 3), ([1, 4], 3), ([5, 5], 5)],
)
def test_several_hosts_that_end_differently_are_partly_failed(codes: list[int], expected: int) -> None:
    assert outcomes.exit_code([run(code) for code in codes]) == expected


def test_a_push_that_left_every_host_out_reached_nobody() -> None:
    assert outcomes.exit_code([], skipped=["lab"]) == 5


@pytest.mark.parametrize(
    ("exc", "code", "said"),
    [
        (errors.HostNotConnected("lab"), 5, "fleet: error: host_not_connected: host 'lab' is not connected"),
        (errors.TaskRejected("replay", "a\nb"), 4, r"(replay): a\x0ab"),
        (errors.TimedOut("no result"), 124, "fleet: error: no result"),
        (OSError(28, "No space left on device", "/var/x"), 1, "fleet: error: No space left on device: /var/x"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero; run with --debug"),
        (click.UsageError("Nothing."), 2, "fleet: error: nothing"),
        (KeyboardInterrupt(), 130, "fleet: interrupted"),
        (click.Abort(), 130, "fleet: interrupted"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    exc: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures.report(exc, None) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_an_error_tells_programs_its_data() -> None:
    told = failures.describe(errors.InvalidArguments("a.b", {"count": "is no number"}, expected="count: int"))
    assert told["code"] == "invalid_arguments"
    assert told["exit_code"] == 2
    assert told["fields"] == {"count": "is no number"}
    assert json.dumps(told)
