"""Logs: what a line holds, and what it must never hold."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fleet import logs


@pytest.fixture(autouse=True)
def _put_logging_back() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [handler for handler in root.handlers if getattr(handler, "_fleet", False)]:
        root.removeHandler(handler)
    root.setLevel(level)


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_becomes_one_json_object_with_its_fields() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream=stream)
    logs.get("fleet.test").bind(host="edge-1").info("run.rejected", run="edge-1:x", reason="replay")
    (line,) = written(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "run.rejected",
        "host": "edge-1",
        "run": "edge-1:x",
        "reason": "replay",
        "level": "info",
        "logger": "fleet.test",
    }


@pytest.mark.parametrize("format", ["console", "json"])
def test_secrets_are_masked_wherever_they_stand(format: logs.Format) -> None:  # noqa: A002
    stream = io.StringIO()
    logs.configure("info", format, stream=stream)
    log = logs.get("fleet.test")
    log.info("broker.lost", url="redis://user:hush-1@127.0.0.1/0", password="hush-2", flower_password="hush-3")
    log.info("token.made", text="fleet.0123456789abcdef.hush-4_hush-4_hush-4_hush-4_hush.aHVzaC01")
    logging.getLogger("kombu").warning("cannot connect to %s", "redis://:hush-6@127.0.0.1/0")
    try:
        int("redis://:hush-7@127.0.0.1/0")  # the error quotes it
    except ValueError as exc:
        log.exception("broker.lost", error=exc)
    assert "hush" not in stream.getvalue()
    assert stream.getvalue().count("***") >= 6


def test_a_traceback_stays_readable_and_control_characters_do_not_reach_a_terminal() -> None:
    stream = io.StringIO()
    logs.configure("info", "console", stream=stream)
    try:
        float("red\x1b[31m")
    except ValueError:
        logs.get("fleet.test").exception("container.refused", name="\x1b]0;owned\x07")
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\\x1b]0;owned" in text
    assert "Traceback (most recent call last):\n" in text


#: What a host or a principal may put into whatever it has a say in.
HOSTILE = "web\n2026-01-01T00:00:00Z [info     ] run.approved run=x\r\x1b[2K\x1b]0;owned\x07\u202e\u2028\x85"


class Named:
    """Something of a library's, whose text comes from elsewhere."""

    def __repr__(self) -> str:
        return f"<{HOSTILE}>"


@pytest.mark.parametrize("format", ["console", "json"])
@pytest.mark.parametrize(
    "value",
    [
        HOSTILE,
        [HOSTILE],
        {HOSTILE: HOSTILE},
        ValueError(HOSTILE),
        Named(),
        (Named(), HOSTILE),
    ],
)
def test_a_line_is_one_line_whatever_somebody_put_into_it(format: logs.Format, value: object) -> None:  # noqa: A002
    stream = io.StringIO()
    logs.configure("info", format, stream=stream)
    logs.get("fleet.test").info("run.failed", run="edge-1:x", host="edge-1", principal="alice", error=value)
    logging.getLogger("kombu").warning("cannot connect: %s", value)
    logging.getLogger(f"odd.{value}").warning("said")
    text = stream.getvalue()
    assert len(text.splitlines()) == 3, text
    assert all(character.isprintable() for character in text.replace("\n", ""))
    if format == "json":
        found = written(stream)[0]
        assert (found["run"], found["host"], found["principal"]) == ("edge-1:x", "edge-1", "alice")
    else:
        assert "run=edge-1:x" in text
        assert "host=edge-1" in text
        assert "principal=alice" in text


def test_no_line_of_a_traceback_can_pass_for_an_event() -> None:
    stream = io.StringIO()
    logs.configure("info", "console", stream=stream)
    try:
        raise RuntimeError(HOSTILE)
    except RuntimeError:
        logs.get("fleet.test").exception("run.broken", run="edge-1:x")
    first, *rest = stream.getvalue().splitlines()
    assert "run.broken" in first
    assert rest
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize("format", ["console", "json"])
def test_what_is_to_be_hidden_is_hidden_in_tracebacks_too(format: logs.Format) -> None:  # noqa: A002
    stream = io.StringIO()
    logs.configure("info", format, stream=stream)
    try:
        raise RuntimeError("it was hunter2")
    except RuntimeError:
        hide = "hunter2"
        logs.get("fleet.test").masked_exception("run.broken", lambda text: text.replace(hide, "***"), run="edge-1:x")
    text = stream.getvalue()
    assert "RuntimeError: it was ***" in text
    assert "test_logs.py" in text
    assert "hunter2" not in text
    if format == "json":
        assert written(stream)[0]["exception"].startswith("Traceback")
    else:
        assert all(line.startswith("    ") for line in text.splitlines()[1:])


@pytest.mark.parametrize("format", ["console", "json"])
def test_what_a_process_is_about_is_in_every_line(format: logs.Format) -> None:  # noqa: A002
    stream = io.StringIO()
    logs.configure("info", format, stream=stream, about={"host": "edge-1"})
    logs.get("fleet.test").info("journal.failed")
    logging.getLogger("kombu").warning("lost")
    logs.get("fleet.test").info("host.enrolled", host="edge-2")
    lines = stream.getvalue().splitlines()
    hosts = ["edge-1", "edge-1", "edge-2"]
    if format == "json":
        assert [json.loads(line)["host"] for line in lines] == hosts
    else:
        assert [f"host={host}" in line for host, line in zip(hosts, lines, strict=True)] == [True] * 3


def test_without_configure_a_line_is_one_line_as_well(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        logs.get("fleet.test").info("run.failed", error=HOSTILE)
    [message] = caplog.messages
    assert len(message.splitlines()) == 1
    assert message.isprintable()


def test_libraries_speak_from_warning_on() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream=stream)
    logging.getLogger("celery.worker").info("noise")
    logging.getLogger("celery.worker").warning("lost %s", "it")
    assert [line["event"] for line in written(stream)] == ["lost it"]


def test_configuring_again_replaces_the_output() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", stream=first)
    logs.configure("info", "json", stream=second)
    logs.get("fleet.test").info("host.enrolled")
    assert first.getvalue() == ""
    assert len(written(second)) == 1


def test_without_configure_events_reach_the_program_s_own_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        logs.get("fleet.test").info("host.enrolled", host="edge-1", token="hush")
    assert caplog.messages == ["host.enrolled host=edge-1 token=***"]


def test_importing_logs_imports_no_structlog() -> None:
    code = "import sys, fleet.logs; sys.exit('structlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
