"""Programs that become another user's: a worker that is not root cannot end them, and says so; nothing else suffers.

A listed `sudo` is such a program. The one here is a copy of the interpreter that belongs to root and runs as root.
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from fleet.contracts.shell import KEPT_BYTES
from tests.services.waiting import LIMITS, until
from workers.host import kernel
from workers.host.spool import Ending, Spool
from workers.host.zygote import Zygote

NOBODY = 65534
#: Becomes root for good, says so, and does not end.
BECOME_ROOT = "import os, time; os.setresuid(0, 0, 0); os.write(1, b'root'); time.sleep(600)"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, with a program in it that runs as root, whoever starts it."""
    if os.geteuid() != 0:
        pytest.skip("root alone can make a program that runs as root")
    made = Path(tempfile.mkdtemp(prefix="fleet-reach-"))
    try:
        if os.statvfs(made).f_flag & os.ST_NOSUID:
            pytest.skip("no program below the temporary directory runs as root")
        made.chmod(0o755)
        shutil.copy(Path(sys.executable).resolve(), made / "suid")
        (made / "suid").chmod(0o755 | stat.S_ISUID)
        (made / "spool").mkdir()
        os.chown(made / "spool", NOBODY, NOBODY)
        yield made
    finally:
        for process in _left(made):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(made)


class Worker:
    """A worker's side of a zygote, as a user who is not root; made in a process of its own."""

    def __init__(self, place: Path) -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        self._place = place
        self._control, its = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with its:
            self.zygote = os.fork()
            if self.zygote == 0:
                with suppress(BaseException):
                    self._control.close()
                    kernel.adopt_orphans()
                    Zygote(its, _become).serve()
                os._exit(1)

    def begin(self, *argv: str, hard: float) -> tuple[Spool, socket.socket]:
        """Have a program begin; return where its ending is written, and where it is said."""
        spool = Spool.make(self._place / "spool", f"h1:{uuid.uuid4()}", 1, keeps=KEPT_BYTES)
        lock = spool.take_lock()
        mine, its = socket.socketpair()
        mine.settimeout(30)
        with its:
            socket.send_fds(self._control, [os.fsencode(spool.path)], [its.fileno(), lock])
        os.close(lock)
        job = {"program": {"argv": argv}, "secrets": [], "soft_seconds": None, "hard_seconds": hard}
        mine.sendall(json.dumps(job).encode() + b"\n")
        return spool, mine

    def run(self, *argv: str, hard: float = 30.0) -> Ending | None:
        """Run a program; return how it ended, None where its supervisor ended without a word."""
        _spool, said = self.begin(*argv, hard=hard)
        with said.makefile("rb") as lines:
            return next((Ending.load(line) for line in lines if line.startswith(b"{")), None)

    def becomes_root(self) -> tuple[str, ...]:
        """Return what runs until it is killed, and becomes root's."""
        return str(self._place / "suid"), "-S", "-c", BECOME_ROOT

    def still_works(self) -> bool:
        """Say whether the zygote goes on, and what it starts ends as ever."""
        ending = self.run("/bin/true")
        return ending is not None and ending.kind == "exited" and os.waitpid(self.zygote, os.WNOHANG) == (0, 0)


def _become(job: Mapping[str, Any], _pipe: int) -> NoReturn:
    argv = job["program"]["argv"]
    os.execve(argv[0], argv, {"PYTHONHOME": sys.base_prefix})


def _left(place: Path) -> list[psutil.Process]:
    """Return what still runs of the program that runs as root."""
    running = psutil.process_iter(["cmdline"])
    return [process for process in running if str(place / "suid") in (process.info["cmdline"] or ())]


def _elsewhere(scenario: "Callable[[Path], Any]", place: Path) -> Any:
    """Return what comes of a scenario in a process of its own, which gives up being root."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(scenario, place).result(timeout=60)


def too_long(place: Path) -> tuple[Ending | None, bool]:
    worker, ending = Worker(place), None
    for limit in LIMITS:
        ending = worker.run(*worker.becomes_root(), hard=limit)
        if ending is None or ending.written["stdout"].total:
            break
    return ending, worker.still_works()


def left_running(place: Path) -> tuple[Ending | None, bool]:
    """A program that ends, and leaves one behind that is root's by then."""
    worker = Worker(place)
    path, *more = worker.becomes_root()
    leaves = (
        "import os\n"
        "read, write = os.pipe()\n"
        f"if os.fork() == 0: os.dup2(write, 1); os.setsid(); os.execv({path!r}, {[path, *more]!r})\n"
        "os.read(read, 4)\n"
        "print('done')\n"
    )
    return worker.run(path, "-S", "-c", leaves), worker.still_works()


def supervisor_killed(place: Path) -> tuple[bool, bool, bool]:
    worker = Worker(place)
    spool, said = worker.begin(*worker.becomes_root(), hard=30.0)
    until(lambda: said.recv(4096), "the program is root's")
    [supervisor] = psutil.Process(worker.zygote).children()
    supervisor.send_signal(signal.SIGKILL)
    until(lambda: not spool.is_supervised(), "its lock is free")
    return spool.ending() is None, worker.still_works(), bool(_left(place))


def test_what_became_another_users_is_left_at_its_time_limit_and_its_ending_says_so(place: Path) -> None:
    ending, still_works = _elsewhere(too_long, place)
    [left] = _left(place)
    assert left.uids().real == 0
    assert ending is not None
    assert (ending.kind, ending.exit_status, ending.signal) == ("time_limit", None, None)
    assert ending.left_running == (left.pid,)
    assert ending.written["stdout"].total == 4
    assert still_works


def test_what_a_program_leaves_as_another_users_is_in_its_ending(place: Path) -> None:
    ending, still_works = _elsewhere(left_running, place)
    [left] = _left(place)
    assert ending is not None
    assert (ending.kind, ending.exit_status, ending.left_running) == ("exited", 0, (left.pid,))
    assert still_works


def test_a_zygote_outlives_what_a_killed_supervisor_leaves_as_another_users(place: Path) -> None:
    assert _elsewhere(supervisor_killed, place) == (True, True, True)
