"""A reader who types what a page says, in a directory of their own, command by command.

What stands on a page for something that everybody has another of (a token, a password, a machine's name, a directory)
is replaced by what a test says it means. Variables, the working directory and the umask go on from one command to the
next; what a page leaves running ends with the reader.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.services.documents import ROOT, SHELLS, Block
from tests.services.forked_program import program
from tests.services.waiting import until

#: What a page's placeholder means, or how to find that out when it is met.
Meaning = str | Callable[[], str]

#: Hangs are meant; a whole `pg_dump` takes less.
_LIMIT_SECONDS = 120
#: For a command that is repeated until it shows what a page says.
_SHOWN_WITHIN_SECONDS = 60
_WRAPPED = """\
set -a -o pipefail
. "$READER/variables"
cd "$(cat "$READER/directory")" || exit 99
trap '{ export -p; umask -p; } >"$READER/variables"; pwd >"$READER/directory"' EXIT
"""


@dataclass
class Reader:
    """Runs blocks; `said` has what each command wrote to standard output, by the command without its comment."""

    directory: Path
    environment: Mapping[str, str]
    #: placeholder → what it means here
    meant: Mapping[str, Meaning] = field(default_factory=dict)
    #: command as written, without its comment → the exit code that the page says or means
    ends: Mapping[str, int] = field(default_factory=dict)
    #: command as written → what it shows, at once or within a while; only for commands that change nothing
    shows: Mapping[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    #: what goes on, by the command without its comment
    _behind: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)
    _logs: int = 0

    def __post_init__(self) -> None:
        programs = self.directory / "bin"
        programs.mkdir(parents=True)
        (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (programs / "python3").chmod(0o755)
        here = self.directory / "here"
        here.mkdir()
        (self.directory / "directory").write_text(str(here))
        (self.directory / "variables").write_text("")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "DOCKER_"))}
        self.environment = {
            **inherited,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "READER": str(self.directory),
            **self.environment,
        }

    @property
    def here(self) -> Path:
        """The directory in which the reader is at the moment."""
        return Path((self.directory / "directory").read_text().strip())

    def follow(self, blocks: Iterable[Block]) -> str:
        """Do what the blocks say, and return what the last command wrote to standard output.

        Fails at the first one that does not end as the page says.
        """
        last_said = ""
        for block in blocks:
            if block.language == "python":
                last_said = self.run(f"python3 - <<'END_OF_PROGRAM'\n{block.text}END_OF_PROGRAM", where=str(block))
                continue
            assert block.language in SHELLS, f"{block}: nothing that can be run"
            *before, last = block.commands
            for command in before:
                self.run(command, where=str(block))
            if block.until:
                self.start(last, says=block.until, where=str(block))
            else:
                last_said = self.run(last, where=str(block))
        return last_said

    def run(self, command: str, *, where: str = "a test") -> str:
        """Run one command to its end, and return what it wrote to standard output."""
        written = without_comment(command)
        expected = self.ends.get(written, 0)
        meant = self._as_meant(command)

        shows = self.shows.get(written, "")
        done = self._bash(meant)
        deadline = time.monotonic() + _SHOWN_WITHIN_SECONDS
        while shows and not (done.returncode == expected and shows in done.stdout) and time.monotonic() < deadline:
            done = self._bash(meant)
        assert done.returncode == expected, (
            f"{where}: {command}\nended with {done.returncode}, not {expected}\n{done.stdout}{done.stderr}"
        )
        assert shows in done.stdout, f"{where}: {command}\ndoes not show {shows!r}\n{done.stdout}{done.stderr}"
        self.said[written] = done.stdout
        return done.stdout

    def _bash(self, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", _WRAPPED + script],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_SECONDS,
        )

    def start(self, command: str, *, says: str, where: str) -> None:
        """Begin what goes on, and wait until it has said something."""
        self._logs += 1
        log = self.directory / f"behind-{self._logs}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"{_WRAPPED}trap - EXIT\n{self._as_meant(command)}"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._behind[without_comment(command)] = process

        def said() -> bool:
            text = log.read_text(errors="replace")
            assert process.poll() is None, f"{where}: {command}\nended with {process.returncode}\n{text}"
            return says in text

        try:
            until(said, f"{where}: {command} says {says!r}", timeout=90)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{log.read_text(errors='replace')}") from None

    def end(self, command: str) -> None:
        """Have end what goes on, and wait for it."""
        process = self._behind.pop(command)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def leave(self) -> None:
        """End whatever goes on, the newest first."""
        for command in reversed(list(self._behind)):
            self.end(command)

    def _as_meant(self, command: str) -> str:
        for placeholder, meaning in self.meant.items():
            if placeholder in command:
                command = command.replace(placeholder, meaning if isinstance(meaning, str) else meaning())
        return command


def without_comment(command: str) -> str:
    """Return a command without the comment behind it."""
    return command if "\n" in command else re.sub(r"\s+#.*", "", command)


@pytest.fixture
def make_reader() -> Iterator[Callable[..., Reader]]:
    """Makes readers with a home of their own, in short directories (a fleet's sockets lie below), who leave nothing."""
    made: list[Reader] = []
    with TemporaryDirectory(prefix="fleet-") as directory, contextlib.ExitStack() as programs:

        def make(**environment: str) -> Reader:
            where = Path(directory) / str(len(made))
            home = where / "home"
            home.mkdir(parents=True)
            reader = Reader(where, {"HOME": str(home), "XDG_STATE_HOME": str(home / ".local/state"), **environment})
            made.append(reader)
            programs.enter_context(program(where / "bin"))
            return reader

        yield make
        for reader in made:
            reader.leave()


def up(reader: Reader, *, broker: int, flower: int) -> None:
    """Have `fleet up` run beside what the reader does, with this machine as the host `laptop`."""
    command = f"fleet up --host-id laptop --broker-port {broker} --flower-port {flower} --no-api"
    reader.start(command, says="Ctrl-C ends all of it", where="a test")
