"""Incarnations: one process, and none that has its number after it.

The kernel gives numbers out again. What tells two processes of one number apart is when they were started, in ticks
since the machine was: setting the clock, or faking it, does not move that.
"""

import fcntl
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fleet import errors

#: Places in /proc/<pid>/stat after the name (proc_pid_stat(5)): the state of its first thread, how many threads there
#: are, and the start in ticks since the boot.
_STATE, _THREADS, _START = 0, 17, 19
_DEAD = "ZXx"


@dataclass(frozen=True, kw_only=True)
class Incarnation:
    """A process as it was found once."""

    pid: int
    #: when it was started, in clock ticks since the boot
    ticks: int
    #: the boot, by the kernel's id
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the process that has this number now; None where there is none, or it has ended."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The first thread may be dead before the others: until they are, files are open and locks are held.
        if fields[_STATE] in _DEAD and int(fields[_THREADS]) <= 1:
            return None
        return cls(pid=pid, ticks=int(fields[_START]), boot=_boot())

    def is_alive(self) -> bool:
        return Incarnation.of(self.pid) == self

    def uptime_seconds(self) -> float:
        """Return how long ago it was started."""
        since_boot = float(Path("/proc/uptime").read_text().split()[0])
        return max(since_boot - self.ticks / os.sysconf("SC_CLK_TCK"), 0.0)

    def holds(self, lock: Path) -> bool:
        """Say whether it holds the lock (flock) of a file; False also where it belongs to somebody else."""
        try:
            wanted = lock.stat()
            for link in Path(f"/proc/{self.pid}/fd").iterdir():
                found = _stat(link)
                same = found is not None and (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
                if same and "FLOCK" in Path(f"/proc/{self.pid}/fdinfo/{link.name}").read_text():
                    return self.is_alive()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass  # it has ended, or is none of ours
        return False

    @contextmanager
    def held(self) -> Iterator["Handle | None"]:
        """Give a handle of this very process for the block; None where it has ended.

        Raises `errors.LocalFault` where it belongs to somebody else, or the kernel has no such handles.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        except OSError as exc:
            raise errors.LocalFault(
                f"process {self.pid} cannot be signaled ({exc.strerror})", remedy="Fleet needs Linux 5.3 for that"
            ) from exc
        try:
            # From here on the handle means one process; whether it is this one is to be seen now.
            yield Handle(self.pid, descriptor) if self.is_alive() else None
        finally:
            os.close(descriptor)


class Handle:
    """A process that keeps its identity for as long as this is open."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self._descriptor = descriptor

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where it has ended. Raises `errors.LocalFault` where that is not allowed."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return
        except PermissionError as exc:
            raise errors.LocalFault(
                f"process {self._pid} belongs to another user", remedy="do this as that user, or as root"
            ) from exc

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, and return whether it came."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def is_locked(lock: Path) -> bool:
    """Say whether anybody holds the lock of a file, also somebody whose number means nothing here (in a container).

    It is taken for a moment, shared; raises `errors.LocalFault` where the file is somebody else's.
    """
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as exc:
        raise errors.LocalFault(
            f"{lock} cannot be looked at ({exc.strerror})", remedy="do this as the user whose it is, or as root"
        ) from exc
    return False


def _stat(link: Path) -> os.stat_result | None:
    try:
        return link.stat()
    except OSError:  # closed meanwhile, or of a kind that has none
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
