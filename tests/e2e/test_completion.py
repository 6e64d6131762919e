"""Completion in the shells themselves: the script is loaded, Tab is pressed on a terminal, and the line is right."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
from collections.abc import Callable

import pytest

from tests.services.reader import Reader
from tests.services.system import System

pytestmark = [pytest.mark.xdist_group("standing"), pytest.mark.timeout(300)]

#: How each begins without anything of the user's; how it loads the script, and then has `fleet` only say what it is
#: given. The script runs the program itself, by `env`.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source ./script", "fleet() { printf 'GOT[%s]\\n' \"$*\"; }"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit && compinit -u && source ./script",
        "fleet() { printf 'GOT[%s]\\n' \"$*\"; }",
    ),
    "fish": (
        ["fish", "--no-config", "--interactive"],
        "source ./script",
        "function fleet; printf 'GOT[%s]\\n' \"$argv\"; end",
    ),
}
#: What is typed before Tab → what the command is given.
COMPLETED = {
    "fleet push-t": "push-task",
    "fleet principal set-l": "principal set-level",
    "fleet push-task --descr": "push-task --description",
    "fleet push-task fleet.containers.resta": "push-task fleet.containers.restart",
    "fleet principal create x --level auto": "principal create x --level autonomous",
    "fleet push-task fleet.host.ping --host h": "push-task fleet.host.ping --host h1",
    "fleet host show h": "host show h1",
    "fleet worker --host-id h": "worker --host-id h1",
    "fleet principal show h": "principal show h",
}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, words: list[str], reader: Reader) -> None:
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**reader.environment, "TERM": "xterm"},
            cwd=reader.here,
        )
        os.close(terminal)

    def type(self, keys: str, *, until: str) -> str:
        """Type, and return what the terminal shows, once that matches."""
        os.write(self._controller, keys.encode())
        said = ""
        while not (match := re.search(until, said)):
            ready, _, _ = select.select([self._controller], [], [], 60)
            assert ready, f"no {until!r} after {keys!r}: {said!r}"
            said += os.read(self._controller, 65_536).decode(errors="replace")
        return match[1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._controller)


@pytest.mark.parametrize("name", SHELLS)
def test_tab_completes_commands_options_tasks_and_hosts(
    name: str, standing: System, make_reader: Callable[..., Reader]
) -> None:
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    reader = make_reader(**{key: text for key, text in standing.environment().items() if key.startswith("FLEET_")})
    reader.run(f"fleet completion {name} > script")
    words, load, say = SHELLS[name]
    terminal = Terminal(words, reader)
    try:
        terminal.type(f"{load}; {say}; echo LOAD''ED\n", until="(LOADED)")
        for typed, given in COMPLETED.items():
            assert terminal.type(f"{typed}\t\n", until=r"GOT\[([^%\]]*)\]").strip() == given
    finally:
        terminal.close()


def test_tab_offers_nothing_and_says_nothing_where_no_fleet_is(make_reader: Callable[..., Reader]) -> None:
    for wrong in ({}, {"FLEET_BROKER_URL": "redis://127.0.0.1:1/0"}, {"FLEET_NO_SUCH": "x"}):
        reader = make_reader(_FLEET_COMPLETE="bash_complete", COMP_WORDS="fleet host show h", COMP_CWORD="3", **wrong)
        assert reader.run("fleet 2>&1").strip() == ""
