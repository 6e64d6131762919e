"""The spool: one directory for each attempt that runs below a supervisor, and the truth about it when nobody is left.

    <state>/spool/<uuid of the run>-<attempt>/
        run        whose it is, and of which boot of the machine; written by the worker, before anything else
        lock       held from here to the end of everything that runs: the proof of life
        ask        a FIFO: one byte asks the supervisor to end the run
        output     what the run wrote, first and last part; made by the supervisor, right before it starts the child
        progress   the latest progress, replaced as a whole
        ending     how it ended, one line, and behind it what is kept of a program's output; its room is taken at the
                   beginning, it is synced and renamed before the lock is let go

The worker takes the lock and hands the open file on, to the zygote and to the supervisor, so there is no moment at
which an attempt that may still begin looks as if nobody had it. Without lock and `output`, nothing has begun, and
nothing will.
"""

import fcntl
import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fleet import errors
from workers.host import kernel
from workers.host.capture import Written

#: What ends an attempt: it answered, it raised, it was a program and ended by itself, a limit, somebody's wish, the
#: worker's stop, or it died without a word.
EndingKind = Literal["replied", "failed", "exited", "time_limit", "cancelled", "stopped", "died"]

#: An ending holds a reply (256 KiB) or an error (4,000 characters), and the last of the output (2,000); JSON makes six
#: bytes of a character at most. On a disk that has become full meanwhile there is room for it.
_ENDING_BYTES = 384 * 1024


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, as its supervisor saw it."""

    kind: EndingKind
    duration_seconds: float
    #: the reply's fields, where it replied
    reply: dict[str, Any] | None = None
    #: kind and message, where it failed
    error: tuple[str, str] | None = None
    exit_status: int | None = None
    signal: int | None = None
    #: the end of what it wrote
    output: str = ""
    #: of a program: what is known of "stdout" and "stderr"; what is kept of them lies in the spool
    written: dict[str, Written] | None = None
    #: processes of it that are another user's, and go on, because the worker may not end them
    left_running: tuple[int, ...] = ()

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, data: bytes) -> "Ending":
        """Return what `dump` wrote; raises ValueError for anything else."""
        try:
            fields = json.loads(data)
            error, written, left = fields.pop("error"), fields.pop("written", None), fields.pop("left_running", ())
            return cls(
                **fields,
                error=None if error is None else (str(error[0]), str(error[1])),
                written=written and {name: Written(**known) for name, known in written.items()},
                left_running=tuple(map(int, left)),
            )
        except (TypeError, KeyError, AttributeError, IndexError) as exc:
            raise ValueError("no ending") from exc


class Spool:
    """The directory of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, root: Path, run_id: str, attempt: int, *, keeps: int = 0) -> "Spool":
        """Make the directory of an attempt that is about to begin, with room for so many bytes of output.

        Raises OSError, and `errors.LocalFault` where this very attempt still runs.
        """
        spool = cls(root / f"{run_id.partition(':')[2]}-{attempt}")
        if spool.is_supervised():
            raise errors.LocalFault(f"attempt {attempt} of {run_id} runs already", remedy="wait for its end")
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(spool.path, ignore_errors=True)  # of a claim that was taken back
        try:
            spool.path.mkdir(mode=0o700)
            spool._replace("run", json.dumps({"run_id": run_id, "attempt": attempt, "boot": kernel.boot()}).encode())
            os.mkfifo(spool.path / "ask", 0o600)
            reserve = os.open(spool.path / ".ending", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(reserve, 0, _ENDING_BYTES + keeps)
            finally:
                os.close(reserve)
        except OSError:
            spool.remove()
            raise
        return spool

    @classmethod
    def all(cls, root: Path) -> "list[Spool]":
        return [cls(path) for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []

    def whose(self) -> tuple[str, int] | None:
        """Return run id and attempt; None where the worker was killed before it had written them."""
        run = self._run()
        try:
            return str(run["run_id"]), int(run["attempt"])
        except (KeyError, TypeError, ValueError):
            return None

    def take_lock(self) -> int:
        """Take the lock of a spool that was just made; return its descriptor, to be passed on. Raises OSError."""
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock

    def is_supervised(self) -> bool:
        """Say whether somebody has this attempt in hand: a supervisor, or who is about to start one."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    def began(self) -> bool:
        """Say whether the child may have been started.

        After a power failure the directory shows what had reached the disk, which proves nothing.
        """
        return (self.path / "output").exists() or self._run().get("boot") != kernel.boot()

    def ending(self) -> Ending | None:
        """Return how the attempt ended; None where that is not known, or not yet."""
        try:
            with (self.path / "ending").open("rb") as file:
                return Ending.load(file.readline())
        except (OSError, ValueError):
            return None

    def kept(self) -> bytes:
        """Return what is kept of a program's output; nothing where it ended without a word."""
        try:
            with (self.path / "ending").open("rb") as file:
                file.readline()
                return file.read()
        except OSError:
            return b""

    def end(self, ending: Ending, kept: bytes = b"") -> None:
        """Write down how it ended, into the room that was kept for it. Raises OSError."""
        with (self.path / ".ending").open("r+b") as file:
            file.write(ending.dump() + b"\n" + kept)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        (self.path / ".ending").replace(self.path / "ending")

    def progress(self) -> tuple[str, float | None] | None:
        """Return the latest step and percentage."""
        try:
            return checked_progress(json.loads((self.path / "progress").read_bytes()))
        except (OSError, ValueError):
            return None

    def tell_progress(self, step: str, percent: float | None) -> None:
        """Replace the latest progress. Raises OSError."""
        self._replace("progress", json.dumps([step, percent]).encode())

    def open_ask(self) -> int:
        """Open the FIFO of wishes to read and to write; what is written stays while somebody has it open."""
        return os.open(self.path / "ask", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ask(self, wish: bytes) -> bool:
        """Ask the supervisor to end the run; False where there is none."""
        try:
            fifo = os.open(self.path / "ask", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(fifo, wish)
        except OSError:
            return False
        finally:
            os.close(fifo)
        return True

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _run(self) -> dict[str, Any]:
        try:
            run = json.loads((self.path / "run").read_bytes())
        except (OSError, ValueError):
            return {}
        return run if isinstance(run, dict) else {}

    def _replace(self, name: str, content: bytes) -> None:
        temporary = self.path / f".{name}"
        temporary.write_bytes(content)
        temporary.replace(self.path / name)


def checked_progress(told: object) -> tuple[str, float | None]:
    """Return step and percentage of a JSON list of the two; raises ValueError for anything else."""
    match told:
        case [str(step), None]:
            return step, None
        case [str(step), int() | float() as percent] if math.isfinite(percent):
            return step, float(percent)
        case _:
            raise ValueError("no progress")
