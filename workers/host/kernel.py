"""Kernel: the calls of Linux that Python's library has no words for."""

import ctypes
import os
import resource
from pathlib import Path

#: Numbers of prctl(2) (linux/prctl.h).
_SET_PDEATHSIG, _SET_NAME, _SET_CHILD_SUBREAPER = 1, 15, 36

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int | bytes) -> None:
    if _libc.prctl(option, argument, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(number: int) -> None:
    """Have this process sent a signal when the thread that forked it ends."""
    _prctl(_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Set what `ps -o comm` shows, 15 characters."""
    _prctl(_SET_NAME, name.encode()[:15])


def children() -> list[int]:
    """Return the direct children of this process, which has one thread."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return children_by_search()


def children_by_search() -> list[int]:
    """Return the same by looking at every process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(status.parent.name))
    return found


def let_go_of_standard_streams() -> None:
    """Have input, output and error output lead nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def limit(what: int, most: int) -> None:
    """Set a resource limit for good; one that is lower already stays."""
    _soft, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def be_the_first_to_go() -> None:
    """Have the kernel choose this process before others when memory runs out, where that may be set."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # a hardened kernel; the limit of its own memory holds all the same


def boot() -> str:
    """Return an id of the time since this machine was started (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
