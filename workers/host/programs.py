"""Programs: the program that was checked is the one that runs.

`find` looks at a program, `become` runs it if it is still the same. A program is trusted for where it lies: nobody but
root and the worker's user may change the file, a directory or a link on the way to it, as written or as resolved.

What runs is the descriptor that was compared, never the path again. A binary is held by a read lease from before the
comparison until the kernel has it, so who wants to write into it waits. Where there is no lease (some file systems,
another's file) root alone could still write into the file in the microseconds between. An interpreter reads its script
again, so it is given a copy in memory that nobody can change. Its `$0` is `/dev/fd/N`, and that descriptor stays open.

Not covered is what a program loads itself (libraries, modules, files of settings), and that the kernel opens a script's
interpreter once more by its path, which root alone could change after the comparison.
"""

import errno
import fcntl
import hashlib
import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from fleet import errors

#: A file that changed so lately may change again without another time stamp: those of some kernels tick a hundred
#: times a second. It is compared by its content as well.
_LATELY_NS = 2 * 10**9
_LARGEST_SCRIPT = 16 * 1024 * 1024
#: As many as the kernel follows (path_resolution(7)), and as much of a first line as it reads (execve(2)).
_MOST_LINKS = 40
_FIRST_LINE = 256
#: linux/memfd.h; Python 3.11 has no name for it.
_MFD_EXEC = 0x10


@dataclass(frozen=True)
class Program:
    """A program that was looked at."""

    #: as the policy has it
    path: str
    #: where links lead
    resolved: str
    #: device, inode, size, times of the last change of content and of the inode (ns), mode, owner
    identity: tuple[int, ...]
    is_script: bool = False
    #: of the content, of scripts and of what changed lately; hexadecimal
    sha256: str = ""
    #: what runs a script
    interpreter: "Program | None" = None

    @classmethod
    def load(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `dataclasses.asdict` and JSON made of one."""
        interpreter = fields["interpreter"]
        return cls(
            **{
                **fields,
                "identity": tuple(fields["identity"]),
                "interpreter": None if interpreter is None else cls.load(interpreter),
            }
        )


def find(path: str) -> Program:
    """Look at a program.

    Raises `errors.TaskFailed` (`no_such_program`) and `errors.NotGranted` (`unsafe_program`) where it is not one, or
    somebody else could change it.
    """
    with _opened(path) as descriptor:
        return _look(path, descriptor)


def become(program: Program, argv: Sequence[bytes], environment: Mapping[bytes, bytes]) -> NoReturn:
    """Run a program instead of this process, if it is the one that was looked at.

    Raises `errors.NotGranted` (`program_changed`) where it is not, and as `find`; OSError where it cannot be run.
    Descriptors of this process that may be inherited are.
    """
    try:
        with _opened(program.path) as descriptor:
            _hold(descriptor, program)
            found = _look(program.path, descriptor, compare=program)
            if found != program:
                raise _changed(program.path)
            if program.is_script:
                with _copied(descriptor, program) as copy:
                    os.execve(copy, list(argv), dict(environment))  # noqa: S606 - what this module is for
            os.execve(descriptor, list(argv), dict(environment))  # noqa: S606
    except OSError as exc:
        if exc.errno == errno.ETXTBSY:
            raise _changed(program.path, "somebody has it open to write into it") from exc
        raise
    raise AssertionError("execve returned")


def _changed(path: str, how: str = "it is another than a moment ago") -> errors.NotGranted:
    return errors.NotGranted(
        f"program {path}: {how}; it was not run", kind="program_changed", remedy="ask again when it has settled"
    )


def _unsafe(path: str, problem: str, remedy: str = "") -> errors.NotGranted:
    return errors.NotGranted(f"program {path}: {problem}", kind="unsafe_program", remedy=remedy)


def _missing(path: str, problem: str) -> errors.TaskFailed:
    return errors.TaskFailed(
        f"program {path}: {problem}", kind="no_such_program", remedy="install it, or mend the policy's entry"
    )


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open the file that a path leads to, after all of the way has been looked at."""
    try:
        resolved = _resolved(path)
        try:
            descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:  # it may be run, and not read
            descriptor = os.open(resolved, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise _missing(path, "there is none") from exc
    except OSError as exc:
        raise _missing(path, f"cannot be opened ({exc.strerror})") from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _resolved(path: str) -> Path:
    """Follow a path link by link, as the kernel does; raise where somebody else could change where it leads."""
    if not path.startswith("/"):
        raise _missing(path, "is no absolute path")
    place, left, links = Path("/"), path.split("/"), 0
    _check(path, place, place.lstat())
    while left:
        name = left.pop(0)
        if name in {"", "."}:
            continue
        if name == "..":
            place = place.parent
            continue
        step = place / name
        found = step.lstat()
        _check(path, step, found)
        if not stat.S_ISLNK(found.st_mode):
            place = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise _missing(path, "goes around in links")
        target = os.fspath(step.readlink())
        place = Path("/") if target.startswith("/") else place
        left = target.split("/") + left
    return place


def _check(path: str, step: Path | str, found: os.stat_result) -> None:
    """Raise where somebody else than root and this user may change a step of the way, or put another in its place."""
    if found.st_uid not in {0, os.geteuid()}:
        raise _unsafe(path, f"{step} belongs to neither root nor the worker's user", f"chown root {step}")
    if stat.S_ISLNK(found.st_mode):
        return  # its directory says who may replace it
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise _unsafe(path, f"others than its owner may write to {step}", f"chmod go-w {step}")


def _hold(descriptor: int, program: Program) -> None:
    """Have who wants to write into the file wait until this process has become it, where that can be had."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # the usual one would end this process
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        if exc.errno == errno.EAGAIN:
            raise _changed(program.path, "somebody has it open to write into it") from exc
        # no file system for that, or another's file


def _look(path: str, descriptor: int, *, compare: Program | None = None) -> Program:
    """Return what an open file is. With `compare` its content is looked at if that one's was."""
    found = os.fstat(descriptor)
    _check(path, path, found)
    try:
        resolved = _resolved(path)
        there = resolved.lstat()
    except OSError as exc:
        raise _changed(path, "it is gone") from exc
    if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
        raise _changed(path)
    if not stat.S_ISREG(found.st_mode):
        raise _missing(path, "is no regular file")
    if not found.st_mode & 0o111 or not os.access(resolved, os.X_OK, effective_ids=True):
        raise _missing(path, "may not be executed")
    first = b""
    with suppress(OSError):  # opened as a path
        first = os.pread(descriptor, _FIRST_LINE, 0)
    is_script = first.startswith(b"#!")
    if is_script and found.st_size > _LARGEST_SCRIPT:
        raise _unsafe(path, f"is a script of {found.st_size:,} bytes; {_LARGEST_SCRIPT:,} are the most")
    lately = found.st_ctime_ns > time.time_ns() - _LATELY_NS if compare is None else bool(compare.sha256)
    return Program(
        path=path,
        resolved=str(resolved),
        identity=(
            *(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
            *(found.st_mode, found.st_uid),
        ),
        is_script=is_script,
        sha256=_digest(descriptor) if first and (is_script or lately) else "",
        interpreter=_interpreter(path, first, compare) if is_script else None,
    )


def _interpreter(path: str, first: bytes, compare: Program | None) -> Program:
    words = first[2:].split(b"\n", 1)[0].split()
    if not words:
        raise _missing(path, "is a script that names no interpreter")
    name = os.fsdecode(words[0])
    with _opened(name) as descriptor:
        found = _look(name, descriptor, compare=compare.interpreter if compare else None)
    if found.is_script:
        raise _unsafe(path, f"is a script whose interpreter {name} is a script")
    return found


def _digest(descriptor: int) -> str:
    digest, place = hashlib.sha256(), 0
    while data := os.pread(descriptor, 1024 * 1024, place):
        digest.update(data)
        place += len(data)
    return digest.hexdigest()


@contextmanager
def _copied(descriptor: int, program: Program) -> Iterator[int]:
    """Lend a copy of a script that nobody can change, with the content that was looked at."""
    content = b""
    while data := os.pread(descriptor, 1024 * 1024, len(content)):
        content += data
    if hashlib.sha256(content).hexdigest() != program.sha256:
        raise _changed(program.path)
    copy = _memory(Path(program.path).name)
    try:
        with open(copy, "wb", closefd=False) as opened:
            opened.write(content)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
        if not Path(f"/dev/fd/{copy}").exists():
            raise _unsafe(program.path, "is a script, and /proc is not mounted", "mount it, or list another program")
        yield copy
    finally:
        os.close(copy)


def _memory(name: str) -> int:
    """Return a new file in memory that may be executed, and that the program inherits: its interpreter opens it."""
    try:
        return os.memfd_create(name, os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, os.MFD_ALLOW_SEALING)  # a kernel before 6.3
