"""Capture: what a program writes, masked, counted, hashed, and kept head and tail in bounded memory.

Known secrets are masked before anything else sees the bytes. Both streams together keep `contracts.shell.KEPT_BYTES`:
each may use half, and what the other leaves of its own.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fleet.contracts.shell import KEPT_BYTES
from fleet.masking import Masker, Masking


@dataclass(frozen=True)
class Written:
    """What is known of a whole stream; its beginning and end are kept beside this."""

    #: bytes
    total: int
    #: hexadecimal
    sha256: str
    #: bytes that are kept of the beginning, and of what follows it; the middle is missing where they are not all
    head: int
    tail: int


class Capture:
    """The two streams of one program."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets = tuple(secrets)
        self._streams: dict[str, _Stream] = {}

    def add(self, name: str, data: bytes) -> bytes:
        """Take what was written; return what may be shown of it by now."""
        if name not in self._streams:  # a masker is made once something is written
            self._streams[name] = _Stream(self._masker.stream())
        return self._streams[name].add(data)

    def settle(self, name: str) -> bytes:
        """Take note that nothing is written at the moment; return what of it need not wait for more."""
        return self._streams[name].settle() if name in self._streams else b""

    def end(self, name: str) -> bytes:
        """Take note that a stream has ended; return the rest of what may be shown."""
        return self._streams[name].end() if name in self._streams else b""

    def finish(self) -> tuple[dict[str, Written], bytes]:
        """Return what is known of both, and what is kept of them, one behind the other: heads and tails."""
        streams = [self._streams.get(name) or _Stream(Masker(()).stream()) for name in ("stdout", "stderr")]
        wanted = [stream.held for stream in streams]
        half = KEPT_BYTES // 2
        shares = [min(own, max(half, KEPT_BYTES - other)) for own, other in zip(wanted, reversed(wanted), strict=True)]
        parts = [stream.parts(share) for stream, share in zip(streams, shares, strict=True)]
        known = {
            name: Written(stream.total, stream.digest.hexdigest(), len(head), len(tail))
            for name, stream, (head, tail) in zip(("stdout", "stderr"), streams, parts, strict=True)
        }
        return known, b"".join(part for pair in parts for part in pair)

    @cached_property
    def _masker(self) -> Masker:
        return Masker(self._secrets)


class _Stream:
    """One stream: half of what may be kept is its beginning, half its end."""

    def __init__(self, masking: Masking) -> None:
        self.total = 0
        self.digest = hashlib.sha256()
        self._masking = masking
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    @property
    def held(self) -> int:
        return len(self._head) + self._tail_bytes

    def add(self, data: bytes) -> bytes:
        return self._take(self._masking.feed(data))

    def settle(self) -> bytes:
        return self._take(self._masking.settle())

    def end(self) -> bytes:
        return self._take(self._masking.flush())

    def parts(self, share: int) -> tuple[bytes, bytes]:
        """Return beginning and end, so many bytes together."""
        head, tail = bytes(self._head), b"".join(self._tail)
        if len(head) + len(tail) <= share:
            return head, tail
        head = head[: share // 2]
        return head, tail[-(share - len(head)) :]

    def _take(self, data: bytes) -> bytes:
        self.total += len(data)
        self.digest.update(data)
        room = KEPT_BYTES // 2 - len(self._head)
        if room > 0:
            self._head += data[:room]
        if len(data) > room:
            self._tail.append(data[max(0, room) :])
            self._tail_bytes += len(self._tail[-1])
            while self._tail_bytes - len(self._tail[0]) >= KEPT_BYTES // 2:
                self._tail_bytes -= len(self._tail.popleft())
        return data
