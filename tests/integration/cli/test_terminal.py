"""On a terminal: tables fit it, colors are for people, and a push to everybody is asked about."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from fleet import audit, clock, db, names, runs
from tests import factories
from tests.integration.cli.conftest import Cli
from tests.services.broker import Broker

#: Colors and styles (CSI … m).
STYLE = re.compile(r"\x1b\[[0-9;]*m")
#: What a terminal does not show: those, and what a spinner is drawn and wiped out by where something takes its time.
UNSEEN = re.compile(r"\x1b\[[0-?]*[@-~]")


def on_terminal(cli: Cli, *words: str, columns: int = 80, answer: str = "", **environment: str) -> tuple[int, str]:
    """Run `fleet` on a terminal of its own; return the exit code and all that the terminal was sent."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    settings = cli.environ(TERM="xterm-256color", **environment)
    for name in ("NO_COLOR", "COLUMNS", "LINES"):  # readline sets those two, where something has imported it
        settings.pop(name, None)
    process = subprocess.Popen(
        cli.command(*words),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**settings, **environment},
        start_new_session=True,
    )
    os.close(terminal)
    if answer:
        os.write(controller, answer.encode())
    said = b""
    try:
        while chunk := os.read(controller, 65_536):
            said += chunk
    except OSError:
        pass  # Linux says EIO when the last process has closed the terminal
    os.close(controller)
    return process.wait(30), said.decode()


@pytest.fixture
def run_id(ledger: Engine) -> str:
    """Record a task with long names on a host with a long one."""
    host = "a-rather-long-host-name-in-a-warehouse"
    run = names.new_run_id(host)
    with db.session(ledger) as session:
        factories.enroll(session, host, labels={f"label-{n}": "some-value" for n in range(5)})
        reports = [factories.queued(run, description="a long description " * 5), *factories.life(run)]
        runs.apply_many(session, reports)
        for report in reports:
            moment = clock.from_unix(report.at) - timedelta(days=3)
            data = {"step": "\x1b]52;c;QUFB\x07" * 5, "text": "word " * 40}
            audit.record(
                session, event=report.kind, actor=report.sender, host_id=host, run_id=run, occurred_at=moment, data=data
            )
    return run


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("words", [("task", "list"), ("audit", "list"), ("host", "list"), ("doctor",)])
def test_tables_fit_the_terminal(cli: Cli, run_id: str, words: tuple[str, ...], columns: int) -> None:
    _, said = on_terminal(cli, *words, columns=columns, DOCKER_HOST="unix:///nonexistent", FLEET_FLOWER_PORT="1")
    lines = UNSEEN.sub("", said).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= columns
    assert "\x1b]" not in said


def test_the_end_of_an_id_on_a_narrow_terminal_is_enough_to_show_the_task(cli: Cli, run_id: str) -> None:
    _, said = on_terminal(cli, "task", "list")
    assert run_id not in said
    assert run_id[-12:] in said
    assert cli("task", "show", run_id[-12:], "-o", "id").out == f"{run_id}\n"
    _, wide = on_terminal(cli, "task", "list", columns=160)
    assert run_id in wide
    assert on_terminal(cli, "task", "list", "-o", "id", columns=20)[1].strip() == run_id


def test_colors_are_for_terminals_only_and_can_be_put_off(cli: Cli, run_id: str) -> None:
    assert STYLE.search(on_terminal(cli, "task", "list")[1])
    assert not STYLE.search(on_terminal(cli, "task", "list", "--no-color")[1])
    assert not STYLE.search(on_terminal(cli, "task", "list", NO_COLOR="1")[1])
    assert not STYLE.search(cli("task", "list").out)
    assert STYLE.search(on_terminal(cli, "hots")[1])
    assert not STYLE.search(on_terminal(cli, "hots", NO_COLOR="1")[1])


def test_a_push_to_every_host_is_asked_about(cli: Cli, broker: Broker) -> None:
    with broker.connect() as client:
        client.hset(names.HOSTS, "edge-7", factories.entry("edge-7"))
        client.set(names.presence("edge-7"), "{}")
        code, said = on_terminal(cli, "push-task", "fleet.host.ping", "--all", answer="n\n")
        assert "Push fleet.host.ping to every host (1)? [y/N]" in said
        assert "fleet: error:" in said
        assert "nothing was pushed" in said
        assert code == 4
        assert client.llen(names.queue("edge-7")) == 0
        assert on_terminal(cli, "push-task", "fleet.host.ping", "--all", answer="y\n")[0] == 0
        assert on_terminal(cli, "push-task", "fleet.host.ping", "--all", "-y")[0] == 0
        assert client.llen(names.queue("edge-7")) == 2
        code, said = on_terminal(cli, "push-task", "fleet.host.ping", "--all", answer="\x04")
        assert code == 130
        assert client.llen(names.queue("edge-7")) == 2
