"""`fleet up` as tests start it: a process, what it says, and what becomes of its family."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.services import forks

#: The promise is 4 s on an idle machine; tests may share theirs.
START_SECONDS = 90
#: The promise is 3 s on an idle machine; whoever waits for a run or a grace period waits for half a minute.
STOP_SECONDS = 25.0
#: Never set: for what nobody announces. A loop without a pause would take the CPU that is waited for.
PAUSE = threading.Event()
#: The `fleet` of this checkout.
THIS = (sys.executable, "-m", "fleet")


class Up:
    """One `fleet up` on a state directory."""

    def __init__(self, state: Path, *arguments: str, program: Sequence[str] = THIS, **variables: str) -> None:
        self.state = state
        self.program = program
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        self.environment = {
            **inherited,
            "FLEET_STATE_DIR": str(state),
            "PYTHONPATH": str(Path.cwd()),
            "FLEET_API_PORT": "0",
            **variables,
        }
        # not the checkout: nothing may be found there by chance
        self.directory = next(parent for parent in state.parents if parent.is_dir())
        self.said: list[str] = []
        command = [*program, "up", "--host-id", "laptop", *arguments]
        self.process = subprocess.Popen(
            command, env=self.environment, cwd=self.directory, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def read_until(self, pattern: str, *, seconds: float = START_SECONDS) -> re.Match[str]:
        """Read what it says until a line matches."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            line = self.process.stderr.readline()
            self.said.append(line)
            if match := re.search(pattern, line):
                return match
            if not line:
                break
        pytest.fail(f"no line like {pattern!r} in:\n{''.join(self.said)}\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in self.state.glob("log/*.log"))

    def fleet(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another command on the same machine, without any configuration but the state directory."""
        if self.program == THIS:
            return forks.run(arguments, env=self.environment, cwd=self.directory)
        command = [*self.program, *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.directory, check=False, capture_output=True, text=True
        )

    def python(self, program: Path) -> "subprocess.CompletedProcess[str]":
        """Run a Python program on the same machine, without any configuration but the state directory."""
        return subprocess.run(
            [sys.executable, program],
            env=self.environment,
            cwd=self.directory,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def pid(self, name: str) -> int:
        lines = [line for line in self.said if re.match(rf" +{name} +pid ", line)]
        return int(lines[-1].split()[2])

    def end(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def stop(self, number: int = signal.SIGINT) -> str:
        """Send a signal, and return the rest of what it says; fails where it hangs."""
        family = [*self.family(), psutil.Process(self.process.pid)]
        self.process.send_signal(number)
        began = time.monotonic()
        _, alive = psutil.wait_procs(family[:-1], timeout=STOP_SECONDS)
        assert not alive, f"still there: {alive}"
        assert self.process.wait(timeout=STOP_SECONDS) == (0 if number != signal.SIGKILL else -number)
        assert time.monotonic() - began < STOP_SECONDS
        assert self.process.stderr is not None
        return self.process.stderr.read()


def wait_for_port(port: int) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        PAUSE.wait(0.02)
    pytest.fail(f"nothing listens on {port}")
