"""A process that leads lives of runs on a journal and is killed at every moment, one after the other.

    python -m tests.services.scripted_life LIFE DIRECTORY

For each moment of the life, a forked child opens a copy of an empty journal and leads that life until it is killed.
Two ways to die, both real:

- SIGKILL before each SQL statement (BEGIN and COMMIT are some) and on either side of each fdatasync;
- SIGXFSZ, by RLIMIT_FSIZE, in the middle of a write: the kernel cuts the write that would pass the limit short and
  kills whoever tries to go on, so every page of the log is once the last, whole or torn.

What a child was told that is done, it says in a file opened with O_APPEND, which survives it.
"""

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from fleet.contracts.control import CancelRun
from tests.services.sessions import Session
from workers.host.endings import Interruption

RUN = "h1:01900000-0000-7000-8000-000000000001"
OTHER = "h1:01900000-0000-7000-8000-000000000002"

#: Says that something is done.
Say = Callable[[str], None]


def goes_well(session: Session, say: Say) -> None:
    session.accept(RUN)
    say("accepted")
    claim = session.journal.claim(RUN, durable=True, held=True)
    assert claim is not None
    say("claimed")
    session.journal.handed_over([RUN])
    say("effect 1")
    session.endings.progress(claim, step="half", percent=50.0)
    session.endings.succeed(claim, reply={"x": 1}, duration_seconds=0.1)
    say("ended")
    session.store.sync()


def fails_twice(session: Session, say: Say) -> None:
    session.accept(RUN, max_retries=1)
    say("accepted")
    for attempt in (1, 2):
        claim = session.journal.claim(RUN, durable=True)
        assert claim is not None
        say("claimed")
        say(f"effect {attempt}")
        session.endings.fail(claim, kind="broken", message="it is", duration_seconds=0.1)
    say("ended")


def begins_at_once_and_is_handed_back(session: Session, say: Say) -> None:
    claim = session.offer(RUN, begin=True).claim
    assert claim is not None
    say("accepted")
    say("claimed")
    say("effect 1")
    session.endings.hand_back(claim, Interruption.STOPPED)
    say("handed back")
    session.accept(RUN)
    say("accepted")


def is_cancelled(session: Session, say: Say) -> None:
    session.unbegun.cancel(CancelRun(run=RUN, by="ann"))
    say("cancelled")
    session.accept(RUN)
    session.accept(OTHER)
    session.unbegun.cancel(CancelRun(run=OTHER, by="ann"))
    say("ended")


def is_told(session: Session, say: Say) -> None:
    claim = session.begun(run_id=RUN)
    say("accepted")
    say("claimed")
    session.endings.succeed(claim, reply={"x": 1}, duration_seconds=0.1)
    session.outbox.mark_sent(session.outbox.unsent(limit=2))
    say("sent 2")
    session.outbox.acknowledge(1, 2)
    say("acknowledged 2")
    session.outbox.send_again()
    session.outbox.mark_sent(session.outbox.unsent())
    session.outbox.acknowledge(1, 3)
    say("acknowledged 3")


LIVES = {
    life.__name__: life for life in (goes_well, fails_twice, begins_at_once_and_is_handed_back, is_cancelled, is_told)
}


class Moments:
    """Counts the moments of a life, and kills at one of them."""

    def __init__(self, fatal: int) -> None:
        self._left = fatal

    def __call__(self, _statement: str = "") -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _by_kill(session: Session, moment: int) -> None:
    """Be killed at the n-th moment from now on."""
    passes, fdatasync = Moments(moment), os.fdatasync

    def synced(descriptor: int) -> None:
        passes()
        fdatasync(descriptor)
        passes()

    os.fdatasync = synced
    session.store._connection.set_trace_callback(passes)


def _by_limit(session: Session, moment: int) -> None:
    """Be killed in the write that passes the n-th half of a page, counted from the present end of the log."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    log = Path(f"{session.path}-wal").stat().st_size
    limit = max(log + moment * 2000, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def _lead(life: Callable[[Session, Say], None], death: Callable[[Session, int], None], moment: int, path: Path) -> int:
    """Lead a life in a forked child; return its status."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BaseException):
        said = os.open(path.parent / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        session = Session(path)
        death(session, moment)
        life(session, lambda done: os.write(said, f"{done}\n".encode()) and None)
        os._exit(0)
    os._exit(1)


def main(life: str, directory: Path) -> Iterator[str]:
    empty = directory / "empty.db"
    Session(empty, epoch=0).close()
    for death in (_by_kill, _by_limit):
        status, moment = -1, 0
        while status < 0:
            moment += 1
            place = directory / f"{death.__name__[1:]}_{moment}"
            place.mkdir()
            shutil.copy(empty, place / "journal.db")
            status = _lead(LIVES[life], death, moment, place / "journal.db")
            yield f"{place.name} {status}"


if __name__ == "__main__":
    for line in main(sys.argv[1], Path(sys.argv[2])):
        print(line, flush=True)
