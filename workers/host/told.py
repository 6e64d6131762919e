"""What the child of a supervisor tells of its attempt: how far it is, and at the end a reply or an error.

It comes through a pipe that user code can write into as well, so a line is taken for what it says or for nothing.
"""

import contextlib
import json
import math
import time
from typing import Any, NoReturn

from workers.host.replies import MAX_ERROR_CHARACTERS, PROGRESS_INTERVAL_SECONDS
from workers.host.spool import Spool, checked_progress

#: A line from the child holds a reply at most; a child that writes more in one is broken.
_LONGEST_LINE = 1024 * 1024
_LONGEST_STEP = 1000
_PROGRESS = b'{"progress"'


class Told:
    """What one child has told so far. The latest of reply and error counts."""

    def __init__(self, spool: Spool) -> None:
        self.reply: dict[str, Any] | None = None
        #: kind and message
        self.error: tuple[str, str] | None = None
        self._spool = spool
        self._line = b""
        self._progress: bytes | None = None
        self._progress_at = 0.0

    def take(self, data: bytes) -> None:
        """Take the next bytes of it."""
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[:_LONGEST_LINE]
        for line in lines:
            if line.startswith(_PROGRESS):  # there may be very many; the latest is looked at, when it is due
                self._progress = line
            else:
                self._note(line)

    def due_at(self) -> float:
        """Return when progress is to be told (monotonic); infinity where there is none."""
        return self._progress_at if self._progress else math.inf

    def tell_progress(self) -> None:
        """Tell the worker how far it is, where that is news."""
        if self._progress:
            with contextlib.suppress(OSError, ValueError, KeyError, RecursionError):
                step, percent = checked_progress(json.loads(self._progress)["progress"])
                self._spool.tell_progress(step[:_LONGEST_STEP], percent)
            self._progress = None
            self._progress_at = time.monotonic() + PROGRESS_INTERVAL_SECONDS

    def _note(self, line: bytes) -> None:
        """Take note of a reply or an error. Anything else was written by user code into a descriptor not its own."""
        try:
            match json.loads(line, parse_constant=_refuse):
                case {"reply": dict(reply)}:
                    self.reply, self.error = reply, None
                case {"error": [str(kind), str(message)]}:
                    self.reply, self.error = None, (kind[:64], message[:MAX_ERROR_CHARACTERS])
        except (ValueError, RecursionError):
            return


def _refuse(constant: str) -> NoReturn:
    """Be what reads NaN and Infinity, which no other reader of JSON takes."""
    raise ValueError(constant)
