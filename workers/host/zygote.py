"""The zygote: a process with one thread that has imported what runs need, and forks a supervisor for each.

A fresh interpreter would need a third of a second for every run; a fork needs milliseconds, and cannot be made safely
from the worker, which has many threads.

What a killed supervisor leaves behind comes to the zygote, which kills it, and keeps the lock of the spool until then:
a free lock means that nothing of the attempt runs any more, but for what has become another user's, which nobody but
root can end. So it stays until its last supervisor has ended, also when its worker is gone.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from fleet import errors
from fleet.contracts import registry
from workers.host import executing, kernel, performing
from workers.host.descendants import end_descendants
from workers.host.spool import Spool
from workers.host.supervisor import Perform, supervise
from workers.host.tasks.packages import performer

#: What it says when it has imported everything; anything else is what is wrong.
READY = b"ready"
#: The longest path of a spool.
_LONGEST_PATH = 4096


def main(control: str, docker_url: str, memory_bytes: str) -> int:
    """Serve the worker at the other end of a socket until it closes it; return the exit code."""
    kernel.set_name("fleet-zygote")
    kernel.adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its worker does
    worker = socket.socket(fileno=int(control))
    if any(contract.perform for contract in registry.known().values()):
        import_module("workers.host.containers.engine")  # a fifth of a second, for every run that uses it
    problem = _problem()
    worker.sendall(problem.encode() or READY)
    if problem:
        return 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or every child would write again what an import wrote
    perform: Any = partial(_perform, docker_url=docker_url, memory_bytes=int(memory_bytes))
    Zygote(worker, perform).serve()
    return 0


class Zygote:
    """Forks supervisors, and sees to it that nothing is left of them."""

    def __init__(self, worker: socket.socket, perform: Perform) -> None:
        self._worker = worker
        self._perform = perform
        #: process → the lock of its spool
        self._supervisors: dict[int, int] = {}
        #: of those that have ended, until nothing is left of them
        self._ended: list[int] = []
        #: started by what was imported
        self._strangers = frozenset(kernel.children())

    def serve(self) -> None:
        """Fork what the worker asks for, until it has gone and no supervisor is left."""
        woken, wake = os.pipe()
        for descriptor in (woken, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        own = {woken, wake, self._worker.fileno()}
        gc.collect()
        gc.freeze()  # what is imported stays shared with the forked processes
        poll = select.poll()
        poll.register(woken, select.POLLIN)
        poll.register(self._worker, select.POLLIN)
        has_worker = True
        while has_worker or self._supervisors:
            ready = {descriptor for descriptor, _event in poll.poll()}
            if woken in ready:
                os.read(woken, 4096)
                self._bury()
            if self._worker.fileno() in ready and not self._take(own):
                has_worker = False
                poll.unregister(self._worker)
                kernel.let_go_of_standard_streams()

    def _take(self, own: set[int]) -> bool:
        """Fork a supervisor for the next request; return False at the end of them."""
        path, descriptors, _flags, _address = socket.recv_fds(self._worker, _LONGEST_PATH, 2)
        if not path:
            return False
        lock = descriptors[1]
        with socket.socket(fileno=descriptors[0]) as worker:
            try:
                pid = os.fork()
            except OSError:  # no memory, too many processes: the worker sees that nobody holds the socket
                os.close(lock)
                return True
            if pid == 0:
                for descriptor in (*own, *self._supervisors.values(), *self._ended):
                    os.close(descriptor)
                supervise(Spool(Path(os.fsdecode(path))), worker, self._perform, lock=lock)
        self._supervisors[pid] = lock
        return True

    def _bury(self) -> None:
        """Take note of supervisors that have ended; kill what they left; then let go of their locks.

        What is another user's by then goes on: whoever waited for it would wait for as long as it likes.
        """
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if pid in self._supervisors:
                    self._ended.append(self._supervisors.pop(pid))
        end_descendants(but=self._strangers | self._supervisors.keys())
        while self._ended:
            os.close(self._ended.pop())


def _perform(job: Mapping[str, Any], pipe: int, *, docker_url: str, memory_bytes: int) -> NoReturn:
    if job["program"]:
        executing.child(job, pipe=pipe)
    performing.child(job, docker_url=docker_url, memory_bytes=memory_bytes, pipe=pipe)


def _problem() -> str:
    """Import what packages bring; return what is wrong with it, or nothing."""
    try:
        for contract in registry.known().values():
            if contract.perform:
                performer(contract)
    except errors.SettingsInvalid as exc:
        return str(exc)
    return ""
