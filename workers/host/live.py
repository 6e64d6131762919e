"""Live: what a program writes, passed on to the worker while it runs, if the worker takes it.

Lines of JSON on the supervisor's socket, before the ending: `["stdout", text]`, and where something was dropped
`["missed", lines, {"stdout": true}]`: how many lines, and of each stream whether that left it within one.

Nothing waits for the worker, which may be slow, frozen or gone. As much waits for it as is kept of a program's output:
of what is kept whole, whoever reads along gets all, however fast it came. Once more has come, the newest is worth more:
less waits from then on, and what is older is dropped.
"""

import codecs
import contextlib
import json
import math
import select
import socket
import time
from collections import deque

from fleet.contracts.shell import KEPT_BYTES

#: What waits at most, and once something was dropped; and what is passed on in a second for long. In bytes.
MOST_WAITING_BYTES = KEPT_BYTES
MOST_OF_A_FLOOD_BYTES = 256 * 1024
RATE_BYTES = 1024 * 1024
#: Of one line.
_PIECE_BYTES = 16 * 1024
#: When a worker is tried again that takes nothing at the moment, and how long it has for the last words.
_TRY_AGAIN_SECONDS = 0.05
_LAST_WORDS_SECONDS = 3.0


class Live:
    """What waits for the worker."""

    def __init__(self, worker: socket.socket) -> None:
        self._worker = worker
        self._gone = False
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._most_bytes = MOST_WAITING_BYTES
        #: what was dropped and has not been told of: lines, and of each stream whether it ended within one
        self._missed = 0
        self._cut: dict[str, bool] = {}
        #: what is left of the line that is being sent
        self._line = b""
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self._allowance, self._reckoned_at = float(RATE_BYTES), time.monotonic()

    def add(self, name: str, data: bytes) -> None:
        """Have something passed on soon."""
        if self._gone:
            return
        for start in range(0, len(data), _PIECE_BYTES):
            self._waiting.append((name, data[start : start + _PIECE_BYTES]))
        self._bytes += len(data)
        while self._bytes > self._most_bytes:
            self._drop()
            self._most_bytes = MOST_OF_A_FLOOD_BYTES

    def pass_on(self, *, hurried: bool = False) -> float:
        """Send what may be sent and is taken; return in how many seconds to try again, infinity where nothing waits.

        `hurried`: at the end, what waits is sent at once.
        """
        now = time.monotonic()
        self._allowance = min(RATE_BYTES, self._allowance + (now - self._reckoned_at) * RATE_BYTES)
        self._reckoned_at = now
        while self._line or self._waiting:
            if not self._line:
                if self._allowance <= 0 and not hurried:
                    return _TRY_AGAIN_SECONDS
                self._line = self._next_line()
            try:
                sent = self._worker.send(self._line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return _TRY_AGAIN_SECONDS
            except OSError:  # the next worker hears the ending only
                self._gone = True
                self._line = b""
                self._waiting.clear()
                break
            self._line = self._line[sent:]
        return math.inf

    def finish(self) -> bytes:
        """Send the last of it, within three seconds; return what is to be sent before anything else on this socket."""
        for name, decoder in self._decoders.items():
            if half := decoder.decode(b"", final=True):  # of a character
                self.add(name, half.encode())
        gives_up_at = time.monotonic() + _LAST_WORDS_SECONDS
        poll = select.poll()
        poll.register(self._worker, select.POLLOUT)
        while self.pass_on(hurried=True) < math.inf and (left := gives_up_at - time.monotonic()) > 0:
            poll.poll(left * 1000)
        while self._waiting:
            self._drop()
        rest, self._line = self._line, b""
        if self._cut:
            rest += self._missed_line()
        return rest

    def _next_line(self) -> bytes:
        if self._cut:
            return self._missed_line()
        name, data = self._waiting.popleft()
        self._bytes -= len(data)
        self._allowance -= len(data)
        if name not in self._decoders:
            self._decoders[name] = codecs.getincrementaldecoder("utf-8")("replace")
        return json.dumps([name, self._decoders[name].decode(data)]).encode() + b"\n"

    def _missed_line(self) -> bytes:
        lines, self._missed = max(1, self._missed), 0  # a part of a long line is one that is missing
        cut, self._cut = self._cut, {}
        return json.dumps(["missed", lines, cut]).encode() + b"\n"

    def _drop(self) -> None:
        name, data = self._waiting.popleft()
        self._bytes -= len(data)
        self._missed += data.count(b"\n")
        self._cut[name] = not data.endswith(b"\n")
        with contextlib.suppress(KeyError):
            self._decoders[name].reset()
