"""Detached: what a worker does that `fleet worker start` has started, beside what every worker does.

It belongs to no terminal and no directory, keeps its log from growing for ever, has a PID file for as long as it holds
the host's lock, and tells whoever has started it when it is at work, or why it is not.
"""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet import version
from fleet.local import launch, pidfile
from fleet.local.incarnation import Incarnation
from fleet.local.launch import Launch
from fleet.local.output import Bounded, Output
from fleet.settings import Settings

#: What it says when it is at work; anything else is what is wrong.
READY = b"ready"


class Detached:
    """The worker's side of `fleet worker start`."""

    def __init__(self, settings: Settings, *, host: str, told: int) -> None:
        """Leave the present directory; `told` is the descriptor on which somebody waits. Raises OSError."""
        fcntl.fcntl(told, fcntl.F_SETFD, fcntl.FD_CLOEXEC)  # nobody whom the worker starts is waited for
        self._told: int | None = told
        self._settings = settings
        self._directory = settings.host_dir(host)
        self.log = Bounded(2, Output(self._directory / pidfile.LOG))
        os.chdir("/")
        # Whoever started the command may have blocked what tells a worker to stop.
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    @contextmanager
    def recorded(self, how: Launch) -> Iterator[None]:
        """Have the PID file for the block, and a note of how it was started; raises `errors.LocalFault` where they
        cannot be written."""
        process = Incarnation.of(os.getpid())
        assert process is not None
        grace = self._settings.stop_grace.total_seconds()
        path: Path = self._directory / pidfile.PID_FILE
        pidfile.write(path, pidfile.Record(process=process, version=version.current(), stop_grace_seconds=grace))
        try:
            with launch.noted(self._directory, how):
                yield
        finally:
            with suppress(OSError):  # a stale one is recognized
                pidfile.remove(path, process=process)

    def ready(self) -> None:
        """Say that it is at work. Calling again does nothing."""
        self._tell(READY)

    def failed(self, why: str) -> None:
        """Say why it will not be."""
        self._tell(why.encode(errors="replace"))

    def _tell(self, what: bytes) -> None:
        told, self._told = self._told, None
        if told is not None:
            with suppress(OSError):  # nobody waits any more
                os.write(told, what[:4096])
            os.close(told)
