"""Children: the worker's side of runs that are carried out in processes of their own.

    worker ─▶ zygote ─fork─▶ supervisor ─fork─▶ child, which performs a package's function or becomes a program

`run` blocks the pool's thread until the supervisor has ended; the thread waits on a socket, so it can be told anything
meanwhile. What a former session of the worker left is `found` in the spool, and waited for by its lock.
"""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fleet import errors, logs
from fleet.contracts import registry
from fleet.contracts.shell import KEPT_BYTES
from workers.host import process
from workers.host.job import Job, Listener
from workers.host.spool import Ending, Spool
from workers.host.zygote import READY

log = logs.get(__name__)

#: How often the progress of a run is looked at, and whether the supervisor of a former session has ended.
_LOOK_SECONDS = 0.5
_ADOPTED_LOOK_SECONDS = 0.1
#: How long a zygote may take to import everything.
_START_SECONDS = 60.0
#: How often a supervisor is asked for: zygotes may be killed, and nothing has begun then. A killed process is seen to
#: have ended a moment after its sockets.
_TRIES = 3
_TRY_AGAIN_SECONDS = 0.3

OnProgress = Callable[[str, "float | None"], None]


@dataclass(frozen=True)
class Found:
    """An attempt that a former session left in the spool."""

    run_id: str
    attempt: int
    #: whether a supervisor was ever there; without one nothing has begun
    began: bool
    #: whether its supervisor is alive
    running: bool
    ending: Ending | None


class Children:
    """Runs in processes of their own. Thread-safe."""

    def __init__(self, root: Path, *, docker_url: str, memory_bytes: int, begin_within_seconds: float = 30.0) -> None:
        """`begin_within_seconds`: how long a zygote may take for a fork; one that hangs is killed and replaced."""
        self._root = root.absolute()
        self._arguments = (docker_url, str(memory_bytes))
        self._begin_within_seconds = begin_within_seconds
        self._starting = threading.Lock()
        self._zygote: process.Zygote | None = None
        self._changing = threading.Lock()
        #: run id → its spool, of those that run now
        self._spools: dict[str, Spool] = {}
        #: run id → what was asked of a run that is not here, for when it comes
        self._wishes: dict[str, bytes] = {}

    def start(self) -> None:
        """Start the zygote where some contract needs it.

        Raises `errors.SettingsInvalid` where an installed package's function cannot be imported.
        """
        if any(contract.perform for contract in registry.known().values()):
            self._started()

    def run(self, job: Job, *, on_progress: OnProgress, listener: Listener | None = None) -> Ending | None:
        """Carry out one attempt; return how it ended, None where its supervisor ended without a word.

        Raises `errors.LocalFault` where it could not begin.
        """
        with self._prepared(job) as (spool, lock), self._here(job.run_id, spool):
            for _ in range(_TRIES):
                zygote = self._started()
                ending = self._supervised(zygote, spool, lock, job, on_progress=on_progress, listener=listener)
                if ending is not None or spool.began():
                    return ending
                zygote.ends_within(_TRY_AGAIN_SECONDS)
                log.warning("supervisor.missed", run=job.run_id, next="it has not begun; another is started")
        raise errors.LocalFault(
            "no process can be started for a task", remedy="look for a full process table, or a lack of memory"
        )

    def end(self, run_id: str, *, why: Literal["cancelled", "stopped"]) -> bool:
        """Have a run ended: SIGTERM, and SIGKILL after three seconds; return whether it was there.

        One that is not there yet is ended as soon as it has begun.
        """
        wish = why[:1].encode()
        with self._changing:
            spool = self._spools.get(run_id)
            if spool is None:
                self._wishes[run_id] = wish
                return False
        return spool.ask(wish)

    def found(self) -> list[Found]:
        """Return what former sessions left. An attempt that had not begun cannot begin any more."""
        left = []
        for spool in Spool.all(self._root):
            whose = spool.whose()
            if whose is None:
                spool.remove()
                continue
            running = spool.is_supervised()  # first: once the lock is free, nothing changes any more
            began = running or spool.began()
            left.append(Found(*whose, began=began, running=running, ending=None if running else spool.ending()))
        return left

    def wait(self, run_id: str, attempt: int, *, on_progress: OnProgress) -> Ending | None:
        """Wait for the end of a run whose supervisor a former session started; None where it ended without a word."""
        spool = self._spool(run_id, attempt)
        seen = None
        with self._here(run_id, spool):
            while spool.is_supervised():
                seen = _look(spool, seen, on_progress)
                time.sleep(_ADOPTED_LOOK_SECONDS)  # a lock has no event to wait for that could be given up
        _look(spool, seen, on_progress)
        return spool.ending()

    def kept(self, run_id: str, attempt: int) -> bytes:
        """Return what is kept of the output of a program that has ended, until it is forgotten."""
        return self._spool(run_id, attempt).kept()

    def forget(self, run_id: str, attempt: int) -> None:
        """Remove the spool of an attempt that the journal has settled."""
        self._spool(run_id, attempt).remove()
        with self._changing:
            self._wishes.pop(run_id, None)

    def close(self) -> None:
        """Let the zygote end. Supervisors that still run go on; the next session finds them."""
        with self._starting:
            if self._zygote:
                self._zygote.close()
                self._zygote = None

    def _spool(self, run_id: str, attempt: int) -> Spool:
        return Spool(self._root / f"{run_id.partition(':')[2]}-{attempt}")

    @contextmanager
    def _prepared(self, job: Job) -> Iterator[tuple[Spool, int]]:
        """Make the spool of an attempt and hold its lock; raises `errors.LocalFault`."""
        try:
            keeps = KEPT_BYTES if job.program else 0
            spool = Spool.make(self._root, job.run_id, job.attempt, keeps=keeps)
            lock = spool.take_lock()
        except OSError as exc:
            raise errors.LocalFault(f"the spool cannot be written ({exc})", remedy="free some space") from exc
        try:
            yield spool, lock
        finally:
            os.close(lock)

    @contextmanager
    def _here(self, run_id: str, spool: Spool) -> Iterator[None]:
        """Have a run be one that can be ended, from before its supervisor listens."""
        ask = -1
        with suppress(OSError):  # of a former session, and removed a moment ago
            ask = spool.open_ask()
        with self._changing:
            self._spools[run_id] = spool
            wish = self._wishes.pop(run_id, None)
        try:
            if wish:
                spool.ask(wish)
            yield
        finally:
            with self._changing:
                del self._spools[run_id]
            if ask >= 0:
                os.close(ask)

    def _started(self) -> process.Zygote:
        """Return a zygote that lives, starting one."""
        with self._starting:
            if self._zygote and self._zygote.alive():
                return self._zygote
            if self._zygote:
                log.warning("zygote.ended", next="another is started; what runs is not touched")
                self._zygote.close()
            self._zygote = process.Zygote(self._arguments)
            told = self._zygote.hello(timeout=_START_SECONDS)
            if told is None:
                self._zygote.kill()
                raise errors.LocalFault(
                    "the process that starts tasks did not start", remedy="see the log of the worker"
                )
            if told != READY:
                raise errors.SettingsInvalid(told.decode())
            return self._zygote

    def _supervised(
        self,
        zygote: process.Zygote,
        spool: Spool,
        lock: int,
        job: Job,
        *,
        on_progress: OnProgress,
        listener: Listener | None,
    ) -> Ending | None:
        """Have a supervisor forked, and listen to it until it has ended."""
        mine, its = socket.socketpair()
        with mine:
            with its, suppress(OSError):  # the zygote was killed a moment ago
                zygote.fork(spool.path, its, lock=lock)
            mine.settimeout(self._begin_within_seconds)
            try:
                mine.sendall(json.dumps(asdict(job)).encode() + b"\n")
            except OSError:  # nobody is there, or nobody reads: half a job never begins
                with suppress(OSError):
                    mine.shutdown(socket.SHUT_WR)
            return self._listen(mine, spool, zygote, on_progress=on_progress, listener=listener)

    def _listen(
        self,
        supervisor: socket.socket,
        spool: Spool,
        zygote: process.Zygote,
        *,
        on_progress: OnProgress,
        listener: Listener | None,
    ) -> Ending | None:
        """Wait for how it ended, which the supervisor says last, or until nobody holds the other end of the socket."""
        said, seen = b"", None
        hangs_at = time.monotonic() + self._begin_within_seconds
        poll = select.poll()
        poll.register(supervisor, select.POLLIN)
        while True:
            events = poll.poll(min(_LOOK_SECONDS, self._begin_within_seconds) * 1000)
            seen = _look(spool, seen, on_progress)
            if events:
                try:
                    data = supervisor.recv(65536)
                except ConnectionResetError:
                    data = b""
                if not data:
                    break
                *lines, said = (said + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"{"):
                        return Ending.load(line)
                    _hear(line, listener)
            elif time.monotonic() >= hangs_at and not spool.began():
                log.warning("zygote.stuck", next="it is killed; what runs is not touched")
                zygote.kill()
        return spool.ending()


def _hear(line: bytes, listener: Listener | None) -> None:
    """Pass on what a supervisor says of its program, see `workers.host.live`."""
    if listener is None:
        return
    match json.loads(line):
        case ["missed", int(lines), dict(within)]:
            listener.miss(lines, within)
        case [str(name), str(text)]:
            listener.say(name, text)


def _look(spool: Spool, seen: object, on_progress: OnProgress) -> tuple[str, float | None] | None:
    """Pass progress on that is new; return the latest."""
    latest = spool.progress()
    if latest is not None and latest != seen:
        on_progress(*latest)
    return latest
