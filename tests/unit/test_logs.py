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
