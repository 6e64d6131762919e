"""Standard streams, for callers that closed or filled them: what cannot be printed is an error that says so."""

import io
import os
import sys
from typing import IO, Any

from fleet import errors

#: What stands in for a stream that was closed: nothing to read, an output that refuses, and a place for talk.
_STAND_INS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))


class Unwritable(errors.LocalFault):
    """The output takes nothing: its disk is full, say, or it was closed."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(
            f"the output cannot be written ({cause.strerror})",
            remedy="what was asked for may have been done all the same",
        )


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise Unwritable(exc) from exc


def prepare() -> None:
    """Open what the caller closed, or the next file or connection takes its place and gets what is printed.

    From then on an output that takes nothing raises `Unwritable`, so that it is not taken for another disk.
    """
    for name, flags, mode in _STAND_INS:
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, closefd=False))
    output = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(output.fileno(), "w", closefd=False)),
        encoding=output.encoding,
        errors=output.errors,
        line_buffering=output.isatty(),
    )


def flush() -> Exception | None:
    """Write what is left of the output; return what kept it from being written, having dropped the rest."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, Unwritable) as exc:
        _drop(sys.stdout)
        return exc
    return None


def _drop(stream: IO[str]) -> None:
    """Let what is buffered go nowhere: Python would try again at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
