"""A stream: what one attempt at a run says, on its way to the broker.

Written by the run, sent by the one thread of `workers.host.streams`. Entries are made when they are sent, of all that
was said meanwhile, and numbered then: what was dropped before that has no number, and is in the count of lines.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fleet.contracts.output import LARGEST_ENTRY_BYTES, MOST_ENTRIES, Entry

#: A run may say so much in a second for long, in bytes, and so much at once: all that is kept of a command, as JSON. A
#: reader who is away for four seconds misses nothing, and 32 of them take 16 MiB/s of the broker.
RATE_BYTES = 512 * 1024
BURST_BYTES = 1536 * 1024
#: So much waits at most; what is older is dropped.
MOST_WAITING_BYTES = 256 * 1024
#: A stream is unfollowed after that.
UNFOLLOWED_SECONDS = 30.0
#: Characters of one piece: escaped as JSON each has six bytes at most, so that it fits into an entry in any case.
_PIECE_CHARACTERS = 2000
#: Room in an entry for what is not data.
_FRAME_BYTES = 300


class _Said(NamedTuple):
    kind: str
    #: of text (name, text), of another kind its data as JSON; "missed" is no entry, and has whether each stream that
    #: misses some was left within a line
    data: Any
    size: int
    lines: int


class Stream:
    """One attempt's. Thread-safe, as far as one thread says, and one sends."""

    def __init__(
        self,
        run_id: str,
        attempt: int,
        *,
        wake: Callable[[], None],
        now: Callable[[], float],
        hurry: Callable[[], None] | None = None,
    ) -> None:
        """`wake` has the stream sent soon, `hurry` at once; `now` gives unix seconds."""
        self.run_id = run_id
        self.attempt = attempt
        #: of the newest entry
        self.number = 0
        #: entries that are made and not known to have been sent: number and text
        self.prepared: list[tuple[int, str]] = []
        #: when it was last asked who follows
        self.asked_at = float("-inf")
        self.closed = False
        #: bytes of each entry that the broker holds
        self.held: deque[int] = deque(maxlen=MOST_ENTRIES)
        self._wake = wake
        self._hurry = hurry or wake
        self._now = now
        self._changed = threading.Condition()
        self._waiting: deque[_Said] = deque()
        self._bytes = 0
        #: lines that were dropped, or are in an entry; and which streams are within one there
        self._lines = 0
        self._within: set[str] = set()
        #: lines that were left out since the last entry; None where nothing was
        self._left_out: int | None = None
        self._allowance, self._reckoned_at = float(BURST_BYTES), time.monotonic()
        self._followed_at = time.monotonic()
        self._unfollowed = False
        self._on_unfollowed: Callable[[], None] = _nothing

    def write(self, kind: str, data: Mapping[str, Any]) -> None:
        """Say something that is an entry of its own; raises ValueError where it is too large for one."""
        size = _size(data)
        if size > LARGEST_ENTRY_BYTES - _FRAME_BYTES:
            raise ValueError(f"{size:,} bytes; an entry holds {LARGEST_ENTRY_BYTES:,}")
        self._add(_Said(kind, dict(data), size, 0))

    def say(self, name: str, text: str) -> None:
        """Say text of that name, going on where the former left off."""
        for start in range(0, len(text), _PIECE_CHARACTERS):
            piece = text[start : start + _PIECE_CHARACTERS]
            self._add(_Said("text", (name, piece), _size(piece), piece.count("\n")))

    def miss(self, lines: int, within: Mapping[str, bool]) -> None:
        """Say that so many lines are missing here, dropped before they came; `within` says of each stream that had some
        whether they left it within a line."""
        self._add(_Said("missed", within, 0, lines))

    def wait_for_room(self, seconds: float) -> bool:
        """Wait until half of what may wait has been sent, so long at most; return whether it has."""
        with self._changed:
            if self._bytes > MOST_WAITING_BYTES // 2:
                self._hurry()
            return self._changed.wait_for(lambda: self._bytes <= MOST_WAITING_BYTES // 2, seconds)

    def close(self, seconds: float) -> bool:
        """Say that nothing more comes, and wait until all is sent, so long at most; return whether it is."""
        with self._changed:
            self.closed = True
            self._hurry()
            return self._changed.wait_for(lambda: not self.waits(), seconds)

    @property
    def unfollowed(self) -> bool:
        return self._unfollowed

    def when_unfollowed(self, act: Callable[[], None]) -> None:
        """Have `act` called once nobody has followed for a while; now, where that is so already."""
        with self._changed:
            self._on_unfollowed = act
            unfollowed = self._unfollowed
        if unfollowed:
            act()

    # what follows is for the sending thread

    def prepare(self, now: float) -> bool:
        """Make entries of what was said, as many as may be sent now; return whether there is something to send."""
        again = bool(self.prepared)  # the broker was away
        with self._changed:
            self._allowance = min(BURST_BYTES, self._allowance + (now - self._reckoned_at) * RATE_BYTES)
            self._reckoned_at = now
            while self._waiting and self._allowance > 0 and not again:
                self._pass_missed()
                self.number += 1
                text = self._next_entry()
                self._allowance -= len(text)
                self.prepared.append((self.number, text))
            self._changed.notify_all()
        return bool(self.prepared)

    def sent(self, now: float, *, followers: object) -> None:
        """Take note that the broker has all that was prepared, and how many were told of it."""
        self.asked_at = now
        with self._changed:
            self.prepared.clear()
            if isinstance(followers, int) and followers > 0:
                self._followed_at = now
            self._changed.notify_all()

    def waits(self) -> bool:
        """Return whether there is something that the broker does not have."""
        return bool(self._waiting or self.prepared)

    def follow_anew(self) -> None:
        """Count from now on how long nobody follows."""
        self._followed_at = time.monotonic()

    def look_for_followers(self) -> None:
        """Find out whether nobody has followed for a while, and tell whoever wanted to know."""
        with self._changed:
            if self._unfollowed or time.monotonic() - self._followed_at < UNFOLLOWED_SECONDS:
                return
            self._unfollowed = True
            act = self._on_unfollowed
        act()

    def _add(self, said: _Said) -> None:
        with self._changed:
            self._waiting.append(said)
            self._bytes += said.size
            while self._bytes > MOST_WAITING_BYTES:
                self._leave_out(self._take())
        self._wake()

    def _leave_out(self, said: _Said) -> None:
        """Have the next entry tell that something is missing before it."""
        if said.kind in {"text", "missed"}:
            self._left_out = (self._left_out or 0) + said.lines
        self._pass(said)

    def _pass(self, said: _Said) -> None:
        """Count the lines of what is in an entry, or in none, and know whether it ended within one."""
        self._lines += said.lines
        ends = {said.data[0]: not said.data[1].endswith("\n")} if said.kind == "text" and said.data[1] else {}
        for name, within in (said.data if said.kind == "missed" else ends).items():
            (self._within.add if within else self._within.discard)(name)

    def _pass_missed(self) -> None:
        """Count lines that are missing before what waits; after the last word, an empty one tells of them."""
        while self._waiting[0].kind == "missed":
            self._leave_out(self._take())
            if not self._waiting:
                self._waiting.append(_Said("text", ("stdout", ""), 0, 0))

    def _next_entry(self) -> str:
        if self._left_out == 0:  # a part of a long line is one that is missing
            self._lines += 1
        self._left_out = None
        before, within = self._lines, frozenset(self._within)
        first = self._take()
        self._pass(first)
        data = first.data
        if first.kind == "text":
            pieces, size = [[first.data[0], first.data[1]]], first.size
            while self._waiting and self._waiting[0].kind == "text":
                name, text = self._waiting[0].data
                size += self._waiting[0].size + len(name) + 8
                if size > LARGEST_ENTRY_BYTES - _FRAME_BYTES:
                    break
                self._pass(self._take())
                if pieces[-1][0] == name:
                    pieces[-1][1] += text
                else:
                    pieces.append([name, text])
            data = {"pieces": pieces}
            within &= {name for name, _text in pieces}
        entry = Entry.model_construct(
            v=1,
            attempt=self.attempt,
            number=self.number,
            before=before,
            lines=self._lines - before,
            within=tuple(sorted(within)) if first.kind == "text" else (),
            at=self._now(),
            kind=first.kind,
            data=data,
        )
        return _text(entry.model_dump())

    def _take(self) -> _Said:
        said = self._waiting.popleft()
        self._bytes -= said.size
        return said


def _text(value: Any) -> str:
    """Return JSON that can be written as UTF-8: half a surrogate pair becomes a question mark."""
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def _nothing() -> None:
    """Be called where nobody wanted to know."""
