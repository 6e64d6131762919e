"""The supervisor: one small process for each attempt that runs below it; it outlives the worker.

It starts the child, holds the time limits, listens to wishes, bounds the output, ends every descendant, and writes down
how it all ended. It depends on nothing but its own process and the spool: no broker, no worker, no journal.

A reply that came counts, whatever was asked for meanwhile: it is what happened.
"""

import contextlib
import json
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from workers.host import kernel
from workers.host.output import Output
from workers.host.replies import MAX_ERROR_CHARACTERS, PROGRESS_INTERVAL_SECONDS
from workers.host.spool import Ending, EndingKind, Spool, checked_progress

#: Wishes that come through the spool's FIFO.
WISHES: Mapping[bytes, EndingKind] = {b"c": "cancelled", b"s": "stopped"}
#: What the child is sent when the soft time limit is over.
SOFT_LIMIT_SIGNAL = signal.SIGUSR1
#: How long processes have to end in order before they are killed.
TERM_SECONDS = 3.0
#: What asks the supervisor itself to end: the run is ended then, and that is written down.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Held back while the child is forked, until each side has its own handlers.
HELD_BACK = frozenset({*_STOPS, SOFT_LIMIT_SIGNAL})
#: A line from the child holds a reply at most; a child that writes more in one is broken.
_LONGEST_LINE = 1024 * 1024
_LONGEST_STEP = 1000
_PROGRESS = b'{"progress"'
_CHUNK = 65536

#: Runs the contract in the child: the job, and where it tells what became of it.
Perform = Callable[[Mapping[str, Any], int], NoReturn]


class Supervisor:
    """Supervises one attempt, from the fork of its child to the end of its last descendant."""

    def __init__(self, spool: Spool, job: Mapping[str, Any], perform: Perform, *, own: set[int]) -> None:
        """`own` are descriptors that no child may keep. Raises OSError; nothing has begun then."""
        self._spool = spool
        self._job = job
        self._perform = perform
        self._selector = selectors.DefaultSelector()
        self._ask = spool.open_ask()
        self._output = Output(spool.path / "output")
        self._own = {*own, self._ask, self._output.descriptor, self._selector.fileno()}
        self._line = b""
        self._told: dict[str, Any] = {}
        self._progress: bytes | None = None
        self._progress_at = 0.0
        #: why it was ended, where it was
        self._why: EndingKind | None = None
        self._begun_at = time.monotonic()
        soft = job["soft_seconds"]
        self._soft_at = math.inf if soft is None else self._begun_at + soft
        self._hard_at = self._begun_at + job["hard_seconds"]
        self._kill_at = math.inf
        self._child = 0

    def run(self) -> Ending:
        """Return how the attempt ended, once nothing of it is left."""
        for number in _STOPS:
            signal.signal(number, lambda *_: os.write(self._ask, b"s"))
        output, report = self._start()
        gone = os.pidfd_open(self._child)
        for descriptor, act in (
            (self._ask, self._hear),
            (output, self._take_output),
            (report, self._take_report),
            (gone, None),
        ):
            self._selector.register(descriptor, selectors.EVENT_READ, act)
        ended = False
        while not ended:
            for key, _events in self._selector.select(self._act_in_time()):
                if key.data is None:
                    ended = True
                else:
                    key.data(key.fd)
        _pid, status = os.waitpid(self._child, 0)
        took = round(time.monotonic() - self._begun_at, 6)
        end_descendants()
        for pipe, take in ((output, self._take_output), (report, self._take_report)):
            while pipe in self._selector.get_map() and take(pipe):
                pass
        self._tell_progress()
        return self._ending(status, took)

    def _start(self) -> tuple[int, int]:
        """Fork the child; return where its output and its reports are read."""
        output, written = os.pipe()
        report, told = os.pipe()
        supervisor = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        self._child = os.fork()
        if self._child == 0:
            with contextlib.suppress(BaseException):
                kernel.die_with_parent(signal.SIGKILL)
                os.setsid()
                nothing = os.open(os.devnull, os.O_RDONLY)
                for target, source in ((0, nothing), (1, written), (2, written)):
                    os.dup2(source, target)
                for descriptor in {output, report, written, nothing, *self._own}:
                    os.close(descriptor)
                if os.getppid() == supervisor:
                    self._perform(self._job, told)
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        os.close(written)
        os.close(told)
        os.set_blocking(output, False)
        os.set_blocking(report, False)
        return output, report

    def _act_in_time(self) -> float | None:
        """Do what is due; return the seconds until something else is, None where nothing will be."""
        now = time.monotonic()
        if now >= self._soft_at:
            self._soft_at = math.inf
            if self._why is None:
                os.kill(self._child, SOFT_LIMIT_SIGNAL)
        if now >= self._hard_at:
            self._end("time_limit")
        if now >= self._kill_at:
            self._kill_at = math.inf
            self._signal_group(signal.SIGKILL)
        if self._progress and now >= self._progress_at:
            self._tell_progress()
        progress_at = self._progress_at if self._progress else math.inf
        due = min(self._soft_at, self._hard_at, self._kill_at, progress_at)
        return None if due == math.inf else max(0.0, due - now)

    def _hear(self, ask: int) -> None:
        for byte in os.read(ask, 64):
            if wish := WISHES.get(bytes([byte])):
                self._end(wish)

    def _end(self, why: EndingKind) -> None:
        self._hard_at = math.inf
        if self._why is None:
            self._why = why
            self._kill_at = time.monotonic() + TERM_SECONDS
            self._signal_group(signal.SIGTERM)

    def _signal_group(self, number: int) -> None:
        """Signal the child, which has not been waited for, so its number is still its own, and its group."""
        try:
            os.killpg(self._child, number)
        except ProcessLookupError:  # it was forked a moment ago and leads no group yet
            os.kill(self._child, number)

    def _take_output(self, pipe: int) -> bool:
        data = self._read(pipe)
        self._output.add(data)
        return bool(data)

    def _take_report(self, pipe: int) -> bool:
        data = self._read(pipe)
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[:_LONGEST_LINE]
        for line in lines:
            if line.startswith(_PROGRESS):  # there may be very many; the latest is looked at, when it is due
                self._progress = line
            else:
                self._note(line)
        return bool(data)

    def _note(self, line: bytes) -> None:
        """Take note of a reply or an error. Anything else was written by user code into a descriptor not its own."""
        try:
            match json.loads(line, parse_constant=_refuse):
                case {"reply": dict(reply)}:
                    self._told = {"reply": reply}
                case {"error": [str(kind), str(message)]}:
                    self._told = {"error": (kind[:64], message[:MAX_ERROR_CHARACTERS])}
        except (ValueError, RecursionError):
            return

    def _tell_progress(self) -> None:
        if self._progress:
            with contextlib.suppress(OSError, ValueError, KeyError, RecursionError):
                step, percent = checked_progress(json.loads(self._progress)["progress"])
                self._spool.tell_progress(step[:_LONGEST_STEP], percent)
            self._progress = None
            self._progress_at = time.monotonic() + PROGRESS_INTERVAL_SECONDS

    def _read(self, pipe: int) -> bytes:
        """Read what is there; at the end of a pipe, listen to it no more."""
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            self._selector.unregister(pipe)
        return data

    def _ending(self, status: int, took: float) -> Ending:
        said = self._output.close()
        code = os.waitstatus_to_exitcode(status)
        exit_status, number = (code, None) if code >= 0 else (None, -code)
        if "reply" in self._told:
            return Ending("replied", took, reply=self._told["reply"], exit_status=exit_status, output=said)
        if self._why:
            return Ending(self._why, took, exit_status=exit_status, signal=number, output=said)
        if "error" in self._told:
            return Ending("failed", took, error=self._told["error"], exit_status=exit_status, output=said)
        return Ending("died", took, exit_status=exit_status, signal=number, output=said)


def supervise(spool: Spool, worker: socket.socket, perform: Perform, *, lock: int) -> NoReturn:
    """Be a supervisor, in a process that was just forked for it: from the job on the socket to the ending on it."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.adopt_orphans()
        kernel.set_name("fleet-run")
        kernel.let_go_of_standard_streams()  # they are the worker's, and whoever reads them waits for all holders
        with worker.makefile("rb") as said:
            job = json.loads(said.readline())  # half a line: the worker ended meanwhile, and nothing begins
        ending = _supervised(spool, job, perform, own={lock, worker.fileno()}).dump()
        with contextlib.suppress(OSError):  # the disk is broken; the worker, if it lives, hears it all the same
            spool.end(ending)
        with contextlib.suppress(OSError):  # the worker has gone; the next one reads the spool
            worker.sendall(ending)
    finally:
        os._exit(0)


def _supervised(spool: Spool, job: Mapping[str, Any], perform: Perform, *, own: set[int]) -> Ending:
    try:
        supervisor = Supervisor(spool, job, perform, own=own)
    except OSError as exc:
        return Ending("failed", 0.0, error=("local_fault", f"the spool cannot be written ({exc})"))
    try:
        return supervisor.run()
    except Exception as exc:  # noqa: BLE001 - whatever it is, nothing may be left running without its supervisor
        end_descendants()
        return Ending("failed", 0.0, error=("internal_error", f"its supervisor broke: {type(exc).__name__}: {exc}"))


def end_descendants(*, but: frozenset[int] = frozenset()) -> None:
    """Kill all children, again and again: what they leave behind comes to their subreaper, to us.

    `but` are spared.
    """
    while pids := [pid for pid in kernel.children() if pid not in but]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _refuse(constant: str) -> NoReturn:
    """Be what reads NaN and Infinity, which no other reader of JSON takes."""
    raise ValueError(constant)
