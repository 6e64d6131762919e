"""Output: what a run writes, kept in its spool without ever filling the disk."""

import contextlib
import os
from pathlib import Path

#: Of what a run writes, so much of the beginning is kept, and so much of the end.
KEPT_BYTES = 512 * 1024
#: How much of it goes with the ending.
_TOLD_CHARACTERS = 2000


class Output:
    """The beginning is written at once, the end when it is known to be that. A full disk costs output, not the run."""

    def __init__(self, path: Path) -> None:
        """Make the file; raises OSError."""
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._kept = 0
        self._dropped = 0
        self._tail = bytearray()
        #: the last of what was written at once, for output that has no other end
        self._head_end = b""

    def add(self, data: bytes) -> None:
        head = data[: max(0, KEPT_BYTES - self._kept)]
        self._write(head)
        self._kept += len(head)
        self._head_end = (self._head_end + head)[-4 * _TOLD_CHARACTERS :]
        self._tail += data[len(head) :]
        if (excess := len(self._tail) - KEPT_BYTES) > 0:
            self._dropped += excess
            del self._tail[:excess]

    def close(self) -> str:
        """Write the end, and return the last of it as text."""
        if self._dropped:
            self._write(f"\n… {self._dropped:,} bytes left out …\n".encode())
        self._write(bytes(self._tail))
        os.close(self.descriptor)
        end = bytes(self._tail) if self._dropped else self._head_end + self._tail
        # A character has four bytes at most.
        return end[-4 * _TOLD_CHARACTERS :].decode("utf-8", "replace")[-_TOLD_CHARACTERS:]

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self.descriptor, data) :]
