"""Attributes: what a file's status says, in the words of the contracts."""

import os
import stat
from datetime import UTC, datetime

#: What a time stamp beyond `datetime`'s reach is shown as: some file systems keep 64 bits of seconds.
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def mode(status: os.stat_result) -> str:
    """Return the permissions, octal, with the setuid, setgid and sticky bits where they are set: `0644`, `4755`."""
    return f"{stat.S_IMODE(status.st_mode):04o}"


def modified(status: os.stat_result) -> datetime:
    """Return when the content was changed last."""
    try:
        return datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return _EARLIEST if status.st_mtime < 0 else _LATEST


def text(name: str) -> str:
    """Return a name of the file system as text: bytes that are no UTF-8 become `\\\\xff`-like escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")
