"""Executing: the child process that becomes a program.

The program gets what is written here and nothing of the worker's: an environment made for it, its directory, a closed
input, no other descriptor than the two that it writes to, a session and a process group of its own, default signals,
umask 022, no core files and at most 4,096 open files.

It has no limit of address space: many programs reserve far more than they use, and would fail at random. It is the
first to go when memory runs out. It may gain privileges (no_new_privs is off), because programs that an admin lists on
purpose, as sudo, are useless without; what may be run is for the policy to say. A worker that is not root cannot end
what became another user's that way: the run says so, and is `unknown`.

Where it cannot become the program it tells its supervisor `{"error": [kind, message]}`, and nothing has run.
"""

import os
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from fleet import errors
from workers.host import kernel, programs
from workers.host.performing import tell
from workers.host.programs import Program

#: Where a program looks for others; its own place is written out in the policy.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Enough for what people run, and too few to exhaust the machine's.
_MOST_FILES = 4096


@dataclass(frozen=True)
class Execution:
    """What is to be run, and how: the part of a job that is a program."""

    program: Program
    #: as the program sees it, its own name first
    argv: tuple[str, ...]
    #: all of it
    environment: Mapping[str, str]
    #: absolute, without links
    directory: str


def child(job: Mapping[str, Any], *, pipe: int) -> NoReturn:
    """Be the child: become the program of a job, or tell why not, and end. Signals are held back."""
    try:
        _become(job["program"], pipe)
    except errors.FleetError as exc:
        kind = exc.kind if isinstance(exc, errors.TaskFailed) else exc.code
        tell(pipe, {"error": [kind, str(exc)]})
    except OSError as exc:
        message = f"program {job['program']['program']['path']}: cannot be run ({exc.strerror})"
        tell(pipe, {"error": ["cannot_run", message]})
    except BaseException as exc:  # noqa: BLE001 - it must end as a child, whatever happens
        tell(pipe, {"error": ["internal_error", f"{type(exc).__name__}: {exc}"]})
    os._exit(1)


def _become(execution: Mapping[str, Any], pipe: int) -> NoReturn:
    program = Program.load(execution["program"])
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
    kernel.be_the_first_to_go()
    kernel.limit(resource.RLIMIT_CORE, 0)
    kernel.limit(resource.RLIMIT_NOFILE, _MOST_FILES)
    os.umask(0o022)
    _enter(execution["directory"])
    for number in signal.valid_signals():
        if signal.getsignal(number) != signal.SIG_DFL:  # those that Python ignores or handles stay so otherwise
            with suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    programs.become(
        program,
        [argument.encode() for argument in execution["argv"]],
        {name.encode(): value.encode() for name, value in execution["environment"].items()},
    )


def _enter(directory: str) -> None:
    """Go into a directory, and see by the kernel's own word that it is that one: no link leads elsewhere."""
    try:
        opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(opened)
        finally:
            os.close(opened)
        entered = os.getcwd()  # noqa: PTH109
    except OSError as exc:
        raise errors.TaskFailed(
            f"directory {directory}: cannot be entered ({exc.strerror})", kind="no_such_directory"
        ) from exc
    if entered != directory:
        raise errors.NotGranted(
            f"directory {directory}: leads to {entered}, which is not granted; nothing was run",
            kind="cwd_changed",
            remedy="have the policy name the directory itself, without links",
        )
