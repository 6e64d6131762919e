"""Kernel: the calls of Linux that Python's library has no words for."""

import ctypes
import errno
import os
import resource
from functools import cache
from pathlib import Path

#: Numbers of prctl(2) (linux/prctl.h).
_SET_PDEATHSIG, _SET_NAME, _SET_CHILD_SUBREAPER = 1, 15, 36

#: openat2(2): its number, the same on every machine (asm-generic/unistd.h), and its words (linux/openat2.h).
_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
#: The kernel gives up (EAGAIN) where something is renamed while it follows a `..`; so often it is asked again.
_MOST_TRIES = 100

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


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


def open_beneath(directory: int, path: str) -> int:
    """Return a descriptor (O_PATH) of what a relative path leads to; no step of the way leaves the directory.

    Links are followed as far as they are relative and stay below. OSError: EXDEV where a link or `..` leads out of the
    directory, ELOOP for a link of /proc that leads anywhere, or too many links, EAGAIN where names change all the time.
    """
    how = _OpenHow(flags=os.O_PATH | os.O_CLOEXEC, resolve=_RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    number = errno.EAGAIN
    for _ in range(_MOST_TRIES):
        found: int = _syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(number, os.strerror(number), path)


@cache
def opens_beneath() -> bool:
    """Say whether this kernel, and whatever filters calls to it, knows `open_beneath` (Linux 5.6)."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(open_beneath(root, "."))
    except OSError as exc:
        if exc.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
        return False
    finally:
        os.close(root)
    return True
