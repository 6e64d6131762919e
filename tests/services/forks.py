"""`fleet …` as a process of its own, without the start of an interpreter: a fork of one that has imported everything.

To start Python and to import what Fleet stands on takes half a second of CPU for a command and one for a service, and
tests start a great many. A fork has the arguments, environment, directory, standard files and session that it is given,
and runs `fleet.cli.main` from its first line; nothing of Fleet has run in it before. What it does not show is the start
of the interpreter: that a command imports all that it uses, or what Python makes of its own variables. So a variable of
Python's or of the locale's makes it a real start here too, and many tests start `python -m fleet` by themselves, those
of `fleet up`, of the daemon, of the wheel and of `tests/integration/cli/test_bad_input.py` among them. Nor is what
`/proc` shows of a fork its own: command line and environment there are the server's, see `real_starts`.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
#: Where one message to the server ends: a command with its environment is far below.
LARGEST = 1 << 20
#: What the server is started with, whatever a test changes later.
_OURS = dict(os.environ)
#: What an interpreter or a library reads when it starts; `PYTHONPATH` is followed.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "OPENSSL_", "SSL_", "MALLOC_")


class Forked:
    """A process, as `subprocess.Popen` shows one; its parent is the server, which tells when it has ended."""

    def __init__(self, pid: int, args: Sequence[str], status: socket.socket) -> None:
        self.pid = pid
        self.args = list(args)
        self.returncode: int | None = None
        self._status: socket.socket | None = status
        self._looking = threading.Lock()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._looking.acquire(timeout=-1 if timeout is None else timeout):  # another thread waits as well
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        try:
            if self._status is not None:
                self._status.settimeout(None if timeout is None else max(timeout, 0.001))
                try:
                    told = self._status.recv(64)
                except TimeoutError:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
                self._status.close()
                self._status = None
                assert told, "the server of forks has ended"
                self.returncode = int(told)
        finally:
            self._looking.release()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if self._status is not None:
            self._status.close()


Process = subprocess.Popen[bytes] | Forked


def start(
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | str | None = None,
    umask: int | None = None,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    output: IO[Any],
    errors: IO[Any],
) -> Process:
    """Start `fleet …` in a session of its own; it writes into these files."""
    command = [sys.executable, "-m", "fleet", *words]
    if not (_in_use and _is_like_ours(env)):
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            umask=-1 if umask is None else umask,
            stdin=stdin,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    with contextlib.ExitStack() as opened:
        given = opened.enter_context(Path(os.devnull).open("rb")) if stdin == subprocess.DEVNULL else stdin
        request = {"words": list(words), "env": dict(env), "cwd": str(cwd or Path.cwd()), "umask": umask}
        pid, status = _server().fork(request, [file.fileno() for file in (given, output, errors)])  # type: ignore[union-attr]
    return Forked(pid, command, status)


def run(
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | str | None = None,
    stdin: str = "",
    timeout: float = 120,
) -> "subprocess.CompletedProcess[str]":
    """Run `fleet …` to its end; return what it said, as `subprocess.run` does."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin.encode())
        given.seek(0)
        process = start(words, env=env, cwd=cwd, stdin=given, output=output, errors=errors)
        try:
            code = process.wait(timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(process.args, code, *said)


def _is_like_ours(env: Mapping[str, str]) -> bool:
    """Say whether a process with these variables would have started as the server did."""
    names = {name for name in {*env, *_OURS} if name.startswith(_READ_AT_START)} - {"PYTHONPATH"}
    paths = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    is_customized = any((Path(path) / "sitecustomize.py").exists() for path in paths)  # run by a start alone
    return not is_customized and all(env.get(name) == _OURS.get(name) for name in names)


@dataclass
class _Server:
    process: "subprocess.Popen[bytes]"
    control: socket.socket

    @classmethod
    def started(cls) -> "_Server":
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        with its:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.services.forks", str(its.fileno())],
                cwd=ROOT,
                env={name: value for name, value in _OURS.items() if not name.startswith(("FLEET_", "DOCKER_"))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        return cls(process, ours)

    def fork(self, request: Mapping[str, Any], files: Sequence[int]) -> tuple[int, socket.socket]:
        """Return the number of a new process, and where its end is told."""
        status, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            socket.send_fds(self.control, [json.dumps(request).encode()], [*files, its.fileno()])
        return int(status.recv(64)), status

    def stop(self) -> None:
        self.control.close()
        self.process.wait(30)


_in_use = False
_started: _Server | None = None
_starting = threading.Lock()


def _server() -> _Server:
    global _started  # noqa: PLW0603 - one a process, started by whoever needs it first
    with _starting:
        _started = _started or _Server.started()
        return _started


@contextlib.contextmanager
def real_starts() -> Iterator[None]:
    """Start every process for itself, for whoever looks at it from outside."""
    global _in_use  # noqa: PLW0603 - one a process, as the server is
    before, _in_use = _in_use, False
    yield
    _in_use = before


def pytest_configure() -> None:
    global _in_use  # noqa: PLW0603 - elsewhere what a start takes is measured: `tests.bench`, `tests.chaos`
    _in_use = True


def pytest_unconfigure() -> None:
    if _started is not None:
        _started.stop()


def _import_everything() -> None:
    from fleet.cli.main import ENTRIES

    for entry in ENTRIES.values():
        importlib.import_module(entry.place.partition(":")[0])
    for name in ("fleet.client", "fleet.db", "workers.control.app", "workers.host.app", "rich.table", "rich.text"):
        importlib.import_module(name)


def _serve(control: socket.socket) -> list[str]:
    """Fork for whoever asks. Returns in each fork, with the words of its command; the server itself never does."""
    _import_everything()
    gc.collect()
    gc.freeze()  # or every fork would copy what its collector touches
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake)
    told: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            for pid, code in _ended():
                with told.pop(pid) as status, contextlib.suppress(OSError):  # nobody may want to know any more
                    status.send(str(code).encode())
        if control in ready:
            message, files, _flags, _address = socket.recv_fds(control, LARGEST, 4)
            if not message:
                sys.exit()
            if (pid := os.fork()) == 0:
                for kept in (control, *told.values()):
                    kept.detach()
                return _become(json.loads(message), files[:3])
            told[pid] = socket.socket(fileno=files[3])
            told[pid].send(str(pid).encode())
            for file in files[:3]:
                os.close(file)


def _ended() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])


def _become(request: Mapping[str, Any], files: Sequence[int]) -> list[str]:
    """Be the process that was asked for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    if request["umask"] is not None:
        os.umask(request["umask"])
    random.seed()
    paths = request["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    importlib.invalidate_caches()
    sys.argv = [str(ROOT / "fleet" / "__main__.py"), *request["words"]]
    return list(request["words"])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from fleet.cli.main import main

    try:
        main()
    except SystemExit as exc:
        # What the interpreter does at its end, but for taking apart what was imported: the memory is the server's.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(exc.code)
