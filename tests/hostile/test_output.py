"""Texts of an attacker on their way to people: nothing moves, recolors or reorders a terminal, and no line is forged.

A stolen host says what it likes about itself, its containers and its runs; a principal writes descriptions and reasons.
"""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

from fleet import audit, clock, db, errors, labeling, names
from fleet.contracts.presence import Heartbeat
from fleet.contracts.reports import Kind, Report
from fleet.security import signing
from fleet.security.keys import KeyPair
from tests import factories
from tests.hostile.siege import EFFECT, Siege
from tests.services.waiting import until

FORGED_LINE = '{"event":"approved"}'
#: Each does something to a terminal that shows it as it is.
ATTACKS = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "title": "\x1b]0;owned\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "color": "\x1b[38;5;213m",
    "hidden": "\x1b[8m",
    "C1": "\x9b2J\x9d52;c;ZXZpbA==\x9c\x85\x90",
    "bell": "\x07\x08\x7f",
    "return": "\r",
    "bidi": "\u202e\u2066\u2069\u200f\u061c",
    "lines": "\u2028\u2029\x0b\x0c",
    "line": f"\n{FORGED_LINE}",
}
EVIL = "EVIL".join(ATTACKS.values())
#: What rich itself writes: colors and styles of Fleet's own.
OWN_STYLE = re.compile(r"\x1b\[(0|[1-9]|3[0-7]|9[0-7]|1;3[0-7]|1;9[0-7])m")
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Above what one report may have.
TOO_LONG, LONG = 10 * 2**20, 2**20


def harmless(said: str) -> None:
    """Look that a text on a terminal has nothing but letters, lines and Fleet's own colors."""
    assert "EVIL" in said
    assert not CONTROLS.findall(OWN_STYLE.sub("", said.replace("\r\n", "\n")))
    assert not [line for line in said.splitlines() if OWN_STYLE.sub("", line).strip().startswith(FORGED_LINE)]


def on_terminal(siege: Siege, *words: str, until_said: str = "") -> str:
    """Run `fleet` on a terminal, and return all that this was sent."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 250, 0, 0))
    environment = siege.environment(TERM="xterm-256color", PYTHONIOENCODING="utf-8")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):  # xdist has a terminal of its own size in mind
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet", *words],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
    )
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(controller, 65_536):
            said += chunk
            if until_said and until_said.encode() in said:
                process.terminate()
    except OSError:
        pass  # Linux says EIO when the last process has closed the terminal
    os.close(controller)
    process.wait(30)
    return said.decode()


@pytest.fixture(scope="module")
def spoiled(siege: Siege) -> str:
    """A fleet in which h2 was stolen, and alice writes badly; the id of a run about which both said much."""
    run_id = siege.fleet.push(
        "fleet.host.ping",
        on="h2",
        arguments={"echo": EVIL},
        description=EVIL,
        metadata={"EVIL": EVIL, EVIL: 1},
        offline="queue",
    ).run_ids[0]
    siege.record(run_id, state="queued")
    siege.redis.delete(names.queue("h2"))
    facts = factories.facts(hostname=EVIL, address=EVIL, os=EVIL, kernel=EVIL, docker_version=EVIL, architecture=EVIL)
    containers = [
        factories.container(f"web{EVIL}", image=EVIL, status=EVIL, labels={EVIL: EVIL}).model_dump(mode="json")
    ]
    error = {"kind": EVIL, "message": EVIL + "x" * LONG, "duration_seconds": 1.0}
    told: tuple[tuple[Kind, str | None, dict[str, Any]], ...] = (
        (Kind.HOST_REGISTERED, None, {"facts": facts.model_dump(mode="json"), "journal": "j", "unfinished": [run_id]}),
        (Kind.INVENTORY_SYNCED, None, {"containers": containers}),
        (Kind.RUN_ACCEPTED, run_id, {}),
        (Kind.RUN_STARTED, run_id, {}),
        (Kind.RUN_PROGRESSED, run_id, {"step": EVIL, "percent": 1.0}),
        (Kind.RUN_FAILED, run_id, error),
        (Kind.MESSAGE_REFUSED, None, {"reason": EVIL, "detail": EVIL, "size": 1, "run": EVIL}),
        (Kind.HOST_AVAILABILITY_CHANGED, None, {"availability": EVIL, "by": EVIL}),
    )
    for number, (kind, run, data) in enumerate(told, start=1):
        report(siege, Report(sender="h2", kind=kind, run=run, attempt=1 if run else None, data=data, **at(number)))
    siege.record(run_id, state="failed")
    beat = {
        "host": "h2",
        "at": clock.now().timestamp(),
        "epoch": 1,
        "version": EVIL,
        "address": EVIL,
        "port": 1,
        "pid": 1,
        "started_at": clock.now(),
        "loop_age_seconds": 0.0,
        "in_hand": 0,
        "queue_length": 0,
        "docker_reachable": True,
    }
    with siege.thief(siege.held_by_host("h2")) as thief:
        thief.set(names.presence("h2"), Heartbeat.model_validate(beat).model_dump_json())
        thief.set(names.inventory("h2"), json.dumps({"at": beat["at"], "containers": containers}))
    ended = siege.fleet.push(EFFECT, on="h1", arguments={"log": "/dev/null", "seconds": 60}).run_ids[0]
    siege.record(ended, state="running")
    siege.fleet.cancel(ended, reason=EVIL[:1000])
    siege.record(ended, state="cancelled")
    siege.send(json.dumps({"headers": {"id": EVIL, "task": EVIL}, "body": EVIL}).encode())
    siege.send(b"EVIL\x1b[2J" + b"x" * LONG)
    siege.works()
    return run_id


def at(number: int) -> dict[str, Any]:
    return {"epoch": 1, "seq": number, "at": clock.now().timestamp()}


def report(siege: Siege, said: Report) -> None:
    held = siege.held_by_host("h2")
    key = KeyPair.read(held.private_key.get_secret_value())
    item = signing.sign_reports("h2", [said.model_dump_json()], key)
    with siege.thief(held) as thief:
        thief.lpush(names.reports("h2"), item)
        thief.sadd(names.REPORTS_DIRTY, "h2")
    until(lambda: not siege.redis.llen(names.reports("h2")), "it is taken in")


COMMANDS = {
    "task show": ("task", "show", "{run}"),
    "task list": ("task", "list", "-n", "1000"),
    "task events": ("task", "events", "{run}"),
    "audit list": ("audit", "list", "-n", "2000"),
    "host show": ("host", "show", "h2"),
    "host list": ("host", "list"),
    "ps": ("ps",),
}
#: Those that show nothing of what the host says about itself.
SILENT = {"host list"}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_that_a_command_prints_moves_or_colors_a_terminal(siege: Siege, spoiled: str, name: str) -> None:
    said = on_terminal(siege, *(word.format(run=spoiled) for word in COMMANDS[name]))
    harmless(said + "EVIL" * (name in SILENT))


def test_the_audit_that_is_followed_moves_no_terminal(siege: Siege, spoiled: str) -> None:
    harmless(on_terminal(siege, "audit", "follow", "-n", "1000", until_said="EVIL"))


def test_what_a_run_says_moves_no_terminal(siege: Siege, spoiled: str) -> None:
    held = siege.held_by_host("h2")
    key = KeyPair.read(held.private_key.get_secret_value())
    text = EVIL.replace(f"\n{FORGED_LINE}", "")  # a container may well say such a line
    told = (
        ("text", {"pieces": [["stdout", f"{text}\n"], [EVIL, f"{text}\n"], EVIL, [EVIL], [EVIL, 7]]}),
        ("EVIL\x1b[2J", {EVIL: EVIL}),
        ("text", {EVIL: EVIL}),
        ("pull", {"percent": EVIL, "layers": EVIL}),
    )
    with siege.thief(held) as thief:
        for number, (kind, data) in enumerate(told, start=1):
            entry = json.dumps({"attempt": 1, "number": number, "before": 0, "at": 1.0, "kind": kind, "data": data})
            fields: Any = signing.sign_output(spoiled, entry, key, held.credential)
            thief.xadd(names.output(spoiled), fields)
    harmless(on_terminal(siege, "task", "logs", spoiled))
    done = siege.command("task", "logs", spoiled, "-o", "jsonl")
    assert done.returncode == 0, done.stderr
    assert not CONTROLS.findall(done.stdout)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, "json") for name in COMMANDS] + [("audit list", "jsonl"), ("task list", "jsonl"), ("task show", "yaml")],
)
def test_what_programs_read_stays_what_it_is_and_is_harmless_on_a_terminal(
    siege: Siege, spoiled: str, name: str, form: str
) -> None:
    done = siege.command(*(word.format(run=spoiled) for word in COMMANDS[name]), "-o", form)
    assert done.returncode == 0, done.stderr
    assert not CONTROLS.findall(done.stdout)
    if form == "json":
        assert json.loads(done.stdout)
    if form == "jsonl":
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert records
        assert "approved" not in [record.get("event") for record in records]


def test_what_a_caller_gets_of_it_is_one_error_that_can_be_shown(siege: Siege, spoiled: str) -> None:
    done = siege.command("task", "wait", spoiled, "--timeout", "5s")
    assert done.returncode != 0
    assert not CONTROLS.findall(done.stdout + done.stderr)


def test_a_text_that_is_too_long_or_half_a_character_is_refused_where_it_is_pushed(siege: Siege) -> None:
    for text in ("x" * TOO_LONG, "\ud800"):
        with pytest.raises(errors.InvalidValue):
            siege.fleet.push("fleet.host.ping", on="h1", description=text)
    with pytest.raises(errors.FleetError):
        siege.fleet.push("fleet.host.ping", on="h1", arguments={"echo": "x" * TOO_LONG})
    siege.works()


def test_a_report_of_ten_megabytes_or_of_half_a_character_is_refused(siege: Siege, spoiled: str) -> None:
    before = siege.mark()
    siege.redis.lpush(names.reports("h2"), "x" * TOO_LONG, '{"reports": ["\\ud800"], "signature": "x"}')
    siege.redis.sadd(names.REPORTS_DIRTY, "h2")
    siege.heard("report.refused", after=before, reason="too large")
    siege.heard("report.refused", after=before, reason="not signed by its sender")
    siege.works()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_label_can_be_such_a_text(name: str) -> None:
    for labels in ({"a": f"x{ATTACKS[name]}x"}, {f"x{ATTACKS[name]}x": "a"}):
        with pytest.raises(errors.InvalidValue) as caught:
            labeling.check(labels)
        assert caught.value


def test_the_error_about_a_text_that_cannot_be_shows_it_harmless(siege: Siege) -> None:
    done = siege.command("host", "label", "h1", f"a={EVIL}")
    assert done.returncode != 0
    harmless(done.stderr)


def test_logs_are_one_line_an_event(siege: Siege, spoiled: str) -> None:
    """Of the control worker and of the worker that refused such messages."""
    seen = b""
    for part in siege.parts:
        for line in part.log.read_bytes().splitlines():
            seen += line
            text = line.decode()
            assert not CONTROLS.findall(text), text[:200]
            assert not text.strip().startswith(FORGED_LINE)
            assert len(line) < 64 * 1024
    assert b"message.refused" in seen


def test_the_audit_still_fits_together(siege: Siege, spoiled: str) -> None:
    with db.session(siege.engine, write=False) as session:
        assert audit.verify(session) is None
