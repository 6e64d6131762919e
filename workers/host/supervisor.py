"""The supervisor: one small process for each attempt that runs below it; it outlives the worker.

It starts the child, holds the time limits, listens to wishes, bounds the output, ends every descendant, and writes down
how it all ended. It depends on nothing but its own process and the spool: no broker, no worker, no journal.

The child performs a package's function, or becomes a program (`job["program"]`). What a program writes is masked, kept
and passed on; of a function's output the last lines are.

A reply that came counts, whatever was asked for meanwhile: it is what happened.

Who is not root cannot end what has become another user's, as a listed `sudo` does. The supervisor does not wait for
that: it goes on, and the ending says so.
"""

import base64
import contextlib
import json
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from workers.host import kernel
from workers.host.capture import Capture
from workers.host.descendants import end_descendants, kill
from workers.host.live import Live
from workers.host.output import Output
from workers.host.spool import Ending, EndingKind, Spool
from workers.host.told import Told

#: Wishes that come through the spool's FIFO.
WISHES: Mapping[bytes, EndingKind] = {b"c": "cancelled", b"s": "stopped"}
#: What the child is sent when the soft time limit is over.
SOFT_LIMIT_SIGNAL = signal.SIGUSR1
#: How long processes have to end in order before they are killed.
TERM_SECONDS = 3.0
#: Nothing is written for so long: whoever reads along does not wait for more.
_SETTLE_SECONDS = 0.3
#: What asks the supervisor itself to end: the run is ended then, and that is written down.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Held back while the child is forked, until each side has its own handlers.
HELD_BACK = frozenset({*_STOPS, SOFT_LIMIT_SIGNAL})
_CHUNK = 65536

#: Runs the contract in the child: the job, and where it tells what became of it.
Perform = Callable[[Mapping[str, Any], int], NoReturn]


class Supervisor:
    """Supervises one attempt, from the fork of its child to the end of its last descendant."""

    def __init__(
        self, spool: Spool, job: Mapping[str, Any], perform: Perform, *, worker: socket.socket, own: set[int]
    ) -> None:
        """`own` are descriptors that no child may keep. Raises OSError; nothing has begun then."""
        self._job = job
        self._perform = perform
        self._selector = selectors.DefaultSelector()
        self._ask = spool.open_ask()
        self._output = Output(spool.path / "output")
        self._own = {*own, worker.fileno(), self._ask, self._output.descriptor, self._selector.fileno()}
        self._capture = Capture(map(base64.b64decode, job["secrets"])) if job["program"] else None
        self.live = Live(worker)
        #: where the child's output is read → of which stream it is
        self._streams: dict[int, str] = {}
        self._told = Told(spool)
        #: why it was ended, where it was
        self._why: EndingKind | None = None
        self._begun_at = time.monotonic()
        soft = job["soft_seconds"]
        self._soft_at = math.inf if soft is None else self._begun_at + soft
        self._hard_at = self._begun_at + job["hard_seconds"]
        self._kill_at = math.inf
        #: the child is another user's by now, and cannot be killed
        self._is_out_of_reach = False
        #: when of what was written last all is let go of that cannot be the beginning of a secret
        self._settles_at = math.inf
        self._child = 0
        #: of a program's output, what is kept
        self.kept = b""

    def run(self) -> Ending:
        """Return how the attempt ended, once nothing of it is left."""
        for number in _STOPS:
            signal.signal(number, lambda *_: os.write(self._ask, b"s"))
        report = self._start()
        gone = os.pidfd_open(self._child)
        for descriptor, act in (
            (self._ask, self._hear),
            *((output, self._take_output) for output in self._streams),
            (report, self._take_report),
            (gone, None),
        ):
            self._selector.register(descriptor, selectors.EVENT_READ, act)
        ended = False
        while not (ended or self._is_out_of_reach):
            for key, _events in self._selector.select(self._act_in_time()):
                if key.data is None:
                    ended = True
                else:
                    key.data(key.fd)
        found, status = os.waitpid(self._child, 0 if ended else os.WNOHANG)
        took = round(time.monotonic() - self._begun_at, 6)
        left = end_descendants()
        for pipe, take in (*((output, self._take_output) for output in self._streams), (report, self._take_report)):
            while pipe in self._selector.get_map() and take(pipe):
                if left:  # it may write for ever; this was all that a pipe holds
                    break
        self._told.tell_progress()
        return replace(self._ending(status if found else None, took), left_running=left)

    def _start(self) -> int:
        """Fork the child; return where its reports are read."""
        output, written = os.pipe()
        errors, wrong = os.pipe() if self._capture else (output, written)
        report, told = os.pipe()
        supervisor = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        self._child = os.fork()
        if self._child == 0:
            with contextlib.suppress(BaseException):
                kernel.die_with_parent(signal.SIGKILL)
                os.setsid()
                nothing = os.open(os.devnull, os.O_RDONLY)
                for target, source in ((0, nothing), (1, written), (2, wrong)):
                    os.dup2(source, target)
                for descriptor in {output, errors, report, written, wrong, nothing, *self._own}:
                    os.close(descriptor)
                if os.getppid() == supervisor:
                    self._perform(self._job, told)
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        for descriptor in {written, wrong, told}:
            os.close(descriptor)
        for descriptor in {output, errors, report}:
            os.set_blocking(descriptor, False)
        self._streams = {errors: "stderr", output: "stdout"}
        return report

    def _act_in_time(self) -> float | None:
        """Do what is due; return the seconds until something else is, None where nothing will be."""
        now = time.monotonic()
        if now >= self._soft_at:
            self._soft_at = math.inf
            if self._why is None:
                with contextlib.suppress(PermissionError):
                    os.kill(self._child, SOFT_LIMIT_SIGNAL)
        if now >= self._hard_at:
            self._end("time_limit")
        if now >= self._kill_at:
            self._kill_at = math.inf
            self._signal_group(signal.SIGKILL)
            self._is_out_of_reach = not kill(self._child)
        if now >= self._told.due_at():
            self._told.tell_progress()
        if self._capture and now >= self._settles_at:
            self._settles_at = math.inf
            for name in self._streams.values():
                self.live.add(name, self._capture.settle(name))
        due = min(
            *(self._soft_at, self._hard_at, self._kill_at, self._settles_at, self._told.due_at()),
            now + self.live.pass_on(),
        )
        if self._is_out_of_reach:
            return 0.0
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
        """Signal the child, which has not been waited for, so its number is still its own, and its group.

        Those of another user get nothing.
        """
        with contextlib.suppress(PermissionError):
            try:
                os.killpg(self._child, number)
            except ProcessLookupError:  # it was forked a moment ago and leads no group yet
                os.kill(self._child, number)

    def _take_output(self, pipe: int) -> bool:
        data = self._read(pipe)
        if self._capture:
            self.live.add(self._streams[pipe], self._capture.add(self._streams[pipe], data))
            self._settles_at = time.monotonic() + _SETTLE_SECONDS
        else:
            self._output.add(data)
        return bool(data)

    def _take_report(self, pipe: int) -> bool:
        data = self._read(pipe)
        self._told.take(data)
        return bool(data)

    def _read(self, pipe: int) -> bytes:
        """Read what is there; at the end of a pipe, listen to it no more."""
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            self._selector.unregister(pipe)
        return data

    def _ending(self, status: int | None, took: float) -> Ending:
        """Return how it ended; there is no `status` of a child that goes on."""
        said = self._output.close()
        code = None if status is None else os.waitstatus_to_exitcode(status)
        exit_status, number = (None, -code) if code is not None and code < 0 else (code, None)
        ending = Ending("died", took, exit_status=exit_status, signal=number, output=said)
        if self._told.reply is not None:
            return replace(ending, kind="replied", reply=self._told.reply)
        if self._told.error and (self._capture or not self._why):  # a program that was refused has not begun
            return replace(ending, kind="failed", error=self._told.error)
        if self._capture:
            ending = self._captured(self._capture, replace(ending, kind="exited"))
        return replace(ending, kind=self._why) if self._why else ending

    def _captured(self, capture: Capture, ending: Ending) -> Ending:
        """Return the ending with what is known of a program's output; keep the rest for the spool."""
        for name in self._streams.values():
            self.live.add(name, capture.end(name))
        written, self.kept = capture.finish()
        return replace(ending, written=written)


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
        ending, kept, last_words = _supervised(spool, job, perform, worker=worker, lock=lock)
        with contextlib.suppress(OSError):  # the disk is broken; the worker, if it lives, hears it all the same
            spool.end(ending, kept)
        with contextlib.suppress(OSError):  # the worker has gone; the next one reads the spool
            worker.sendall(last_words() + ending.dump() + b"\n")
    finally:
        os._exit(0)


def _supervised(
    spool: Spool, job: Mapping[str, Any], perform: Perform, *, worker: socket.socket, lock: int
) -> tuple[Ending, bytes, Callable[[], bytes]]:
    """Return how it ended, what is kept of its output, and what sends the last of that."""
    try:
        supervisor = Supervisor(spool, job, perform, worker=worker, own={lock})
    except OSError as exc:
        return Ending("failed", 0.0, error=("local_fault", f"the spool cannot be written ({exc})")), b"", bytes
    try:
        return supervisor.run(), supervisor.kept, supervisor.live.finish
    except Exception as exc:  # noqa: BLE001 - whatever it is, nothing may be left running without its supervisor
        end_descendants()
        problem = f"its supervisor broke: {type(exc).__name__}: {exc}"
        return Ending("failed", 0.0, error=("internal_error", problem)), b"", supervisor.live.finish
