"""Output: what a process says, kept in a file that does not grow for ever."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from fleet import redaction

#: A file and its predecessor; a chatty child costs 16 MiB at most.
LIMIT_BYTES = 8 * 1024 * 1024


class Output:
    """The log file of one child."""

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes

    def trim(self) -> None:
        """Move a file that has become large to `NAME.log.1` and begin anew.

        The child goes on writing to the same open file (it appends), so the content is copied. What it says in the
        moment between the copy and the cut is lost.
        """
        if self.path.is_file() and self.path.stat().st_size > self._limit_bytes:
            before = self.path.with_name(f"{self.path.name}.1")
            shutil.copyfile(self.path, before)
            before.chmod(0o600)
            with self.path.open("r+b") as file:
                file.truncate(0)

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def last_line(self, *, since: int = 0) -> str:
        """Return the last line that was said after offset `since`, fit for a terminal; empty where there is none."""
        return next(iter(self.last_lines(1, since=since)), "")

    def last_lines(self, count: int, *, since: int = 0) -> list[str]:
        """Return the last lines that were said after offset `since`, fit for a terminal."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(max(since if since <= self.size() else 0, self.size() - 8192))
            lines = file.read().decode(errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        return [redaction.for_terminal(line)[:500] for line in said[-count:]]


class Bounded:
    """A stream into the file of an output that is trimmed as it grows, where no supervisor looks after it.

    For logs: whatever else writes to that descriptor, a traceback of the interpreter's own, is in the file as well.
    """

    def __init__(self, descriptor: int, output: Output) -> None:
        self._descriptor = descriptor
        self._output = output

    def write(self, text: str) -> int:
        """Write at once, whole; raises OSError."""
        left = memoryview(text.encode(errors="backslashreplace"))
        while left:
            left = left[os.write(self._descriptor, left) :]
        return len(text)

    def flush(self) -> None:
        """Trim the file where it has become large; without room for a copy, the past goes rather than the disk."""
        try:
            self._output.trim()
        except OSError:
            with suppress(OSError):  # moved away, or no longer ours
                os.truncate(self._output.path, 0)

    def isatty(self) -> bool:
        return False
