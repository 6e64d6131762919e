"""The worker of a host as a daemon: started once, found again, and told to stop.

What is alive is said by the host's lock and by the process, never by the PID file alone; nothing is signaled but the
very process that this file names and that holds the lock. A worker that somebody else runs (in the foreground, by
systemd, in a container) is seen, and left alone.
"""

import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fleet import environment, errors, redaction
from fleet.local import pidfile, process, program
from fleet.local.detached import READY
from fleet.local.incarnation import Incarnation, is_locked
from fleet.local.launch import Launch
from fleet.local.output import Output
from fleet.local.process import Process
from fleet.settings import Settings

#: A start that is not done by then is given up, and ended within the rest of 30 s.
_READY_SECONDS = 25.0
_GIVE_UP_SECONDS = 3.0
#: What a worker may take to end beside the time of its tasks: 5 s for theirs, 5 s for its own, and some.
STOP_SECONDS = 12.0
_KILLED_WITHIN_SECONDS = 5.0
#: Lines of the log that are shown of a start that failed.
_SHOWN_LINES = 10
_START_LOCK = "worker.start.lock"


class State(StrEnum):
    """Whether a host's worker lives on this machine."""

    RUNNING = "running"
    STOPPED = "stopped"
    #: stopped, and it could not remove its PID file
    STALE = "stale"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What there is of a host's worker."""

    state: State
    #: None where none runs, or one whose number means nothing here
    process: Incarnation | None = None
    #: what the PID file says; of the worker that runs, where `fleet worker start` has started it
    record: pidfile.Record | None = None

    @property
    def is_ours(self) -> bool:
        """Say whether it runs, started by `fleet worker start`."""
        return self.state is State.RUNNING and self.record is not None


def look(directory: Path) -> Seen:
    """Look at the worker of a host's directory; raises `errors.LocalFault` where that is somebody else's."""
    lock, file = directory / pidfile.LOCK, directory / pidfile.PID_FILE
    record = pidfile.read(file)
    if record and record.process.is_alive() and record.process.holds(lock):
        return Seen(state=State.RUNNING, process=record.process, record=record)
    other = _named_in(lock)
    if other and other.holds(lock):
        return Seen(state=State.RUNNING, process=other)
    if is_locked(lock):
        return Seen(state=State.RUNNING)
    return Seen(state=State.STALE, record=record) if file.exists() else Seen(state=State.STOPPED)


def start(settings: Settings, *, host: str, launch: Launch, say: Callable[[str], None]) -> tuple[Seen, bool]:
    """Start the worker of a host in this way, unless it runs; return it, and whether this has started it.

    It consumes by then. Raises `errors.LocalFault` where it does not within 30 s; then nothing of it is left, and `say`
    has got the last lines of its log.
    """
    directory = settings.host_dir(host)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _turn(directory / _START_LOCK, host):
        seen = look(directory)
        if seen.state is State.RUNNING:
            return seen, False
        log = Output(directory / pidfile.LOG)
        log.trim()
        began_at = log.size()
        try:
            _launch(settings, host, launch, log=log.path)
        except errors.LocalFault:
            for line in log.last_lines(_SHOWN_LINES, since=began_at):
                say(line)
            raise
        return look(directory), True


def stop(directory: Path, *, host: str, timeout_seconds: float | None, kill: bool, say: Callable[[str], None]) -> Seen:
    """Have the worker of a host end, and wait for it; return what was there.

    `kill` ends it by force when the time is over; by default it has as long as its tasks have, and a little. Raises
    `errors.TimedOut` where it goes on, `errors.LocalFault` where `fleet worker start` has not started it.
    """
    seen = look(directory)
    if seen.state is State.RUNNING and seen.record is None:
        number = f" (process {seen.process.pid})" if seen.process else ", perhaps in a container,"
        raise errors.LocalFault(
            f"the worker of {host} runs{number}, and `fleet worker start` has not started it",
            remedy="end it where it was started: Ctrl-C in its terminal, `systemctl stop`, `docker stop`",
        )
    if seen.record is not None and seen.state is State.RUNNING:
        _end(seen.record, lock=directory / pidfile.LOCK, host=host, timeout_seconds=timeout_seconds, kill=kill, say=say)
    pidfile.remove(directory / pidfile.PID_FILE, process=seen.record.process if seen.record else None)
    return seen


def _launch(settings: Settings, host: str, launch: Launch, *, log: Path) -> None:
    """Start the process, and wait until it says that it is at work."""
    variables = program.environment(
        {"FLEET_STATE_DIR": str(settings.state_dir.absolute())},
        config=launch.config,
        inherited=environment.for_worker(launch.variables),
    )
    hears, told = os.pipe()
    try:
        try:
            started = process.detach(
                program.argv("worker", "--host-id", host, *launch.arguments, "--ready-fd", str(told)),
                environment=variables,
                directory=launch.directory,
                output=log,
                keep=told,
            )
        finally:
            os.close(told)
        try:
            said = _read(hears, seconds=_READY_SECONDS)
            if said != READY:
                _give_up(started, said, host=host, log=log)
        except BaseException:  # Ctrl-C, too: nothing is left half started
            _finish(started)
            raise
    finally:
        os.close(hears)


def _give_up(started: Process, said: bytes | None, *, host: str, log: Path) -> None:
    remedy = f"its log is {log}"
    if said is None:
        raise errors.LocalFault(
            f"the worker of {host} did not begin to work within {_READY_SECONDS:.0f} s", remedy=remedy
        )
    how = started.ends_within(_GIVE_UP_SECONDS) or _finish(started)  # it says the same to its log, and ends
    why = redaction.for_terminal(said.decode(errors="replace")) or how
    raise errors.LocalFault(f"the worker of {host} did not start: {why}", remedy=remedy)


def _finish(started: Process) -> str:
    """End a process that has been started, by force where need be, and return how it did end."""
    started.terminate()
    if started.ends_within(_GIVE_UP_SECONDS) is None:
        started.kill()
    return started.ended() or "it cannot be ended"


def _read(descriptor: int, *, seconds: float) -> bytes | None:
    """Return what is said on a pipe until it is closed; None where the time is over before."""
    poll, deadline, said = select.poll(), time.monotonic() + seconds, b""
    poll.register(descriptor, select.POLLIN)
    while poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        if not (more := os.read(descriptor, 4096)):
            return said
        said += more
    return None


def _end(
    record: pidfile.Record,
    *,
    lock: Path,
    host: str,
    timeout_seconds: float | None,
    kill: bool,
    say: Callable[[str], None],
) -> None:
    grace, pid = record.stop_grace_seconds, record.process.pid
    patience = grace + STOP_SECONDS if timeout_seconds is None else timeout_seconds
    with record.process.held() as worker:
        if worker is None or not record.process.holds(lock):  # it has ended in this moment
            return
        worker.send(signal.SIGTERM)
        say(
            f"the worker of {host} (process {pid}) takes nothing more; waiting for its running tasks, up to {grace:g} s"
        )
        if worker.ends_within(patience):
            return
        if not kill:
            raise errors.TimedOut(
                f"the worker of {host} (process {pid}) has not ended within {patience:g} s, and goes on ending",
                remedy="wait on with `fleet worker stop`, or end it by force: `fleet worker stop --kill`",
            )
        worker.send(signal.SIGKILL)
        say(f"it has not ended within {patience:g} s: killed; its journal knows what it had in hand")
        if not worker.ends_within(_KILLED_WITHIN_SECONDS):
            raise errors.LocalFault(f"process {pid} hangs in the kernel", remedy="it ends when that call returns")


def _named_in(lock: Path) -> Incarnation | None:
    """Return the process that a worker's lock file names."""
    try:
        return Incarnation.of(int(lock.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None


@contextmanager
def _turn(path: Path, host: str) -> Iterator[None]:
    """Hold the right to start the worker of a host; whoever comes meanwhile waits for the outcome."""
    deadline, pause = time.monotonic() + _READY_SECONDS + 2 * _GIVE_UP_SECONDS, threading.Event()
    with path.open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise errors.LocalFault(
                        f"another `fleet worker start` of {host} is under way", remedy="wait for its end, and try again"
                    ) from exc
            pause.wait(0.05)  # nobody announces it
        yield
