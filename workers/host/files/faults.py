"""Faults: what the operating system says about a file, as errors with a word for programs.

`no_such_file`, `not_a_file`, `not_a_directory`, `no_such_directory`, `permission_denied`, `read_only`, `no_space`,
`too_large`, `outside`, `never_granted`, `invalid_arguments`; everything else is a `file_error`.
"""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from fleet import errors

_KINDS = {
    errno.ENOENT: ("no_such_file", ""),
    errno.ENOTDIR: ("not_a_directory", ""),
    errno.EISDIR: ("not_a_file", ""),
    errno.EACCES: ("permission_denied", "the worker's user may not do that"),
    errno.EPERM: ("permission_denied", "the worker's user may not do that, or the file cannot be changed"),
    errno.EROFS: ("read_only", ""),
    errno.ENOSPC: ("no_space", "nothing was changed"),
    errno.EDQUOT: ("no_space", "nothing was changed"),
}


@contextmanager
def told(path: str, *, missing: str = "no_such_file") -> Iterator[None]:
    """Raise an OSError of this block as `errors.TaskFailed` about `path`; `missing` is the word for its absence."""
    try:
        yield
    except OSError as exc:
        kind, remedy = _KINDS.get(exc.errno or 0, ("file_error", ""))
        word = missing if exc.errno == errno.ENOENT else kind
        raise errors.TaskFailed(f"{path}: {exc.strerror or exc}", kind=word, remedy=remedy) from exc


def not_a_file(path: str, mode: int) -> errors.TaskFailed:
    """Return the error about something that is there and is no regular file."""
    return errors.TaskFailed(
        f"{path} is {_noun(mode)}", kind="not_a_file", remedy="only regular files are read and written"
    )


def too_large(path: str, size: int, most: int, *, grew: bool = False) -> errors.TaskFailed:
    """Return the error about a file, or a content, of more bytes than may be."""
    has = f"had {most:,} bytes and grows" if grew else f"has {size:,} bytes"
    return errors.TaskFailed(f"{path} {has}; {most:,} are the most", kind="too_large")


def _noun(mode: int) -> str:
    for holds, noun in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    ):
        if holds(mode):
            return noun
    return "no regular file"
