"""Performing: the child process in which the function of one contract runs.

It tells its supervisor, line by line as JSON: {"progress": [step, percent]}, and at last {"reply": {…}} or
{"error": [kind, message]}.
"""

import contextlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from fleet import errors
from fleet.contracts import registry
from workers.host import kernel
from workers.host.replies import MAX_ERROR_CHARACTERS, checked_reply
from workers.host.supervisor import HELD_BACK, SOFT_LIMIT_SIGNAL
from workers.host.tasks.packages import performer

#: What an exit that the supervisor asked for carries.
_ENDED = "ended by its supervisor"
#: Made before memory is short.
_OUT_OF_MEMORY = {"error": ["out_of_memory", "it used more memory than a task may have (FLEET_TASK_MEMORY)"]}


class ChildRun:
    """What a performer is told of its run; fulfils `fleet.contracts.RunContext`."""

    def __init__(self, job: Mapping[str, Any], *, docker_url: str, tell: int) -> None:
        self.run_id: str = job["run_id"]
        self.host: str = job["host"]
        self.attempt: int = job["attempt"]
        self.description: str = job["description"]
        self.metadata: Mapping[str, Any] = job["metadata"]
        self.submitted_by: str = job["submitted_by"]
        self._docker_url = docker_url
        self._engine: Any = None
        self._tell = tell

    @property
    def docker(self) -> Any:
        if self._engine is None:
            from workers.host.containers.engine import Engine

            self._engine = Engine(self._docker_url)
        return self._engine.docker

    def progress(self, step: str, percent: float | None = None) -> None:
        try:
            percent = None if percent is None else float(percent)
        except (TypeError, ValueError, OverflowError):
            percent = math.nan
        if percent is not None and not math.isfinite(percent):
            raise errors.TaskFailed("progress: the percentage is not a number", kind="internal_error")
        # The supervisor passes on one a second: it is there to send the latest when this run says nothing more.
        # Short enough for one write that no other thread's gets mixed with (PIPE_BUF, 4096).
        tell(self._tell, {"progress": [str(step)[:500], percent]})


def tell(pipe: int, message: Mapping[str, Any]) -> None:
    """Write one line to the supervisor; nothing where that has gone."""
    data = json.dumps(message).encode() + b"\n"
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(pipe, data) :]


def child(job: Mapping[str, Any], *, docker_url: str, memory_bytes: int, pipe: int) -> NoReturn:
    """Be the child: run the contract's function, tell what became of it, and end. Signals are held back."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(SOFT_LIMIT_SIGNAL, _raise_soft_limit)
        signal.signal(signal.SIGTERM, _exit_in_order)
        kernel.be_the_first_to_go()
        kernel.limit(resource.RLIMIT_AS, memory_bytes)
        kernel.limit(resource.RLIMIT_CORE, 0)
        os.chdir("/")
        tell(pipe, _outcome(job, ChildRun(job, docker_url=docker_url, tell=pipe)))
        status = 0
    except SystemExit:
        status = 128 + signal.SIGTERM
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # user code may have closed or replaced it
                stream.flush()
        os._exit(status)


def _outcome(job: Mapping[str, Any], run: ChildRun) -> dict[str, Any]:
    """Return what is to be told of the run. While its function is at work, and only then, signals come through."""
    try:
        contract = registry.get(job["task"])
        perform, request = performer(contract), contract.parse(job["arguments"])
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
            reply = perform(request, run)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        return {"reply": checked_reply(contract, reply)}
    except MemoryError:
        return _OUT_OF_MEMORY
    except SystemExit as exc:
        if exc.code == _ENDED:
            raise
        return _error("internal_error", f"it called sys.exit({_text(exc.code)})")
    except errors.FleetError as exc:
        return _error(exc.kind if isinstance(exc, errors.TaskFailed) else exc.code, _text(exc))
    except BaseException as exc:  # noqa: BLE001 - a performer may raise anything; its run must end all the same
        return _error("internal_error", f"{type(exc).__name__}: {_text(exc)}")


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": [str(kind), message[:MAX_ERROR_CHARACTERS]]}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - user code, also in saying what went wrong
        return "an error that cannot be shown"


def _raise_soft_limit(*_: Any) -> None:
    raise errors.SoftTimeLimit("its soft time limit is over", remedy="it had a moment left to put things in order")


def _exit_in_order(*_: Any) -> None:
    """Let `finally` clauses run; the supervisor kills what takes longer than three seconds."""
    raise SystemExit(_ENDED)
