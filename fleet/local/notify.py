"""Notify: tell systemd that this process is up, is ending, or is still alive (sd_notify(3)).

A few lines of ours, because the package for it (`sdnotify`) has not been kept for years, and the whole protocol is
one datagram. What cannot be told is dropped: systemd then does what it was told to do about a service that is silent.
"""

import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from fleet import logs
from fleet.environment import ServiceManager

log = logs.get(__name__)


class Notifier:
    """What one process tells; all of it does nothing where nobody listens."""

    def __init__(self, manager: ServiceManager | None, *, lives: Callable[[], bool]) -> None:
        """`lives` is asked before every sign of life; while it says no, none is given."""
        self._manager = manager
        self._lives = lives
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to give signs of life."""
        if self._manager and self._manager.watchdog:
            # Half of what is allowed, as sd_watchdog_enabled(3) has it.
            every = self._manager.watchdog / 2
            self._thread = threading.Thread(target=self._watch, args=(every,), name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._thread is None:
            self.stopped.set()
        else:
            self._thread.join(1)

    def ready(self) -> None:
        """Say that the process is up. Calling again does nothing."""
        self._once("READY=1")

    def ending(self) -> None:
        """Say that the process has begun to end. Calling again does nothing."""
        self._once("STOPPING=1")

    def _once(self, what: str) -> None:
        with self._lock:
            first = what not in self._told
            self._told.add(what)
        if first:
            self._tell(what)

    def _watch(self, every: timedelta) -> None:
        silent = False
        while not self._stopping.is_set():
            if lives := self._lives():
                self._tell("WATCHDOG=1")
            elif not silent:
                log.error("watchdog.silenced", next="systemd ends this process, and starts another")
            silent = not lives
            self._stopping.wait(every.total_seconds())
        self.stopped.set()

    def _tell(self, what: str) -> None:
        if self._manager is None:
            return
        name = self._manager.socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
                door.settimeout(1)
                door.sendto(what.encode(), f"\0{name[1:]}" if name.startswith("@") else name)
        except OSError as exc:
            log.debug("systemd.unheard", what=what, error=str(exc))
