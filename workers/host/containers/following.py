"""Following: what a container has said and says, read from the Engine and put into a run's output.

The Engine is always asked for the times of lines: a connection that falls silent is opened anew right after the last
line, so that one which is dead without saying so is not followed for ever, and no line is told twice.
"""

import calendar
import codecs
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fleet import errors
from fleet.contracts.container_output import Logs
from workers.host.containers import calls
from workers.host.containers.answers import Answer, Silent
from workers.host.containers.engine import Engine
from workers.host.streams import StreamedRun

#: A stream silent for so long is opened anew, and the Engine asked whether it is there at all, in seconds.
QUIET_SECONDS = 60.0
#: What a container says faster than that is read late, in bytes a second: reading it takes a good part of a processor,
#: and a quarter of it can be told on.
_READ_RATE = 2 * 1024 * 1024
#: So much of the beginning waits for its turn also where it is followed; what comes too fast after that is dropped.
FOLLOWED_WHOLE_BYTES = 1024 * 1024
#: How the Engine begins each part of what a container without a terminal says (Docker Engine API, ContainerAttach).
_HEADER_BYTES = 8
_NAMES = {0: "stdout", 1: "stdout", 2: "stderr", 3: "stderr"}
#: The Engine cuts lines at 16 KiB.
_LONGEST_PART = 1024 * 1024
#: Shortest time of a line: "2026-01-02T03:04:05Z".
_SHORTEST_TIME = 20


class Part(NamedTuple):
    """A line, or a part of a long one: then without the line break at its end."""

    name: str
    #: as the Engine writes it (RFC 3339, nanoseconds); empty where it does not
    time: str
    text: bytes


def parts(chunks: Iterable[bytes], *, terminal: bool) -> Iterator[Part]:
    """Yield what a container said, from the bytes of the Engine's answer; `terminal` says that it has one."""
    for name, payload in _lines(chunks) if terminal else _frames(chunks):
        at, space, text = payload.partition(b" ")
        if space and len(at) >= _SHORTEST_TIME and at[:4].isdigit() and at.endswith(b"Z"):
            yield Part(name, at.decode("ascii", "replace"), text)
        else:
            yield Part(name, "", payload)


def _frames(chunks: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        begin = 0
        while len(buffer) - begin >= _HEADER_BYTES:
            length = int.from_bytes(buffer[begin + 4 : begin + _HEADER_BYTES], "big")
            if buffer[begin] not in _NAMES or length > _LONGEST_PART:
                raise errors.EngineUnavailable("what answers in place of the Docker Engine does not speak as one")
            end = begin + _HEADER_BYTES + length
            if len(buffer) < end:
                break
            yield _NAMES[buffer[begin]], bytes(buffer[begin + _HEADER_BYTES : end])
            begin = end
        del buffer[:begin]


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield "stdout", line + b"\n"
        if len(buffer) > _LONGEST_PART:
            yield "stdout", buffer
            buffer = b""
    if buffer:
        yield "stdout", buffer


class Teller:
    """Puts what a container said into a run's output, as text."""

    def __init__(self, run: StreamedRun, *, timestamps: bool, patiently: bool) -> None:
        self._run = run
        self._timestamps = timestamps
        self._patiently = patiently
        self._told_bytes = 0
        # A character may be cut in two where a long line is.
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in set(_NAMES.values())}
        #: of lines that have not ended, their times: the parts of a long one all have the same
        self._amid_line: dict[str, str] = {}
        self.lines = 0

    def tell(self, part: Part) -> None:
        text, begun = self._decoders[part.name].decode(part.text), self._amid_line.pop(part.name, None)
        if self._timestamps and part.time and part.time != begun:
            text = f"{part.time} {text}"
        if begun is not None and part.time != begun:  # the one before ends without a line break: its program did, say
            text = f"\n{text}"
            self.lines += 1
        if part.text.endswith(b"\n"):
            self.lines += 1
        else:
            self._amid_line[part.name] = part.time
        self._told_bytes += len(part.text)
        self._run.say(part.name, text, patiently=self._patiently or self._told_bytes <= FOLLOWED_WHOLE_BYTES)


def read(engine: Engine, docker_id: str, *, terminal: bool, wish: Logs, run: StreamedRun) -> Iterator[Part]:
    """Yield what a container says, until there is no more, the run is to end, or nobody follows it.

    Raises `errors.EngineRefused`, `errors.EngineUnavailable`.
    """
    since = _since(wish)
    opened_at = f"{time.time():.9f}"
    params: dict[str, Any] = {
        "follow": int(wish.follow),
        "stdout": int(wish.stdout),
        "stderr": int(wish.stderr),
        "timestamps": 1,
        "tail": wish.tail,
        **({"since": since} if since else {}),
    }
    newest = ""
    while True:
        answer = engine.open(
            "GET",
            f"/containers/{calls.part(docker_id)}/logs",
            params=params,
            silence_seconds=QUIET_SECONDS,
            container=docker_id,
        )
        try:
            with run.interruptible(answer.close, followed=wish.follow):
                for part in parts(_slowly(answer, run), terminal=terminal):
                    newest = part.time or newest
                    yield part
                return
        except Silent:
            if not wish.follow:
                raise
        engine.inspect(docker_id)  # it is away, or the container has gone
        if newest:
            params |= {"since": _just_after(newest), "tail": "all"}
        elif wish.tail == 0:
            params |= {"since": opened_at, "tail": "all"}


def _slowly(answer: Answer, run: StreamedRun) -> Iterator[bytes]:
    for chunk in answer:
        yield chunk
        if len(chunk) > _READ_RATE // 1000:  # else it was waited for
            run.pause(len(chunk) / _READ_RATE)


def _since(wish: Logs) -> str:
    if wish.since is not None:
        return f"{wish.since.timestamp():.9f}"
    return "" if wish.last_seconds is None else f"{time.time() - wish.last_seconds:.9f}"


def _just_after(moment: str) -> str:
    """Return the nanosecond after a line's time, in the form that the Engine takes: unix seconds with nine digits."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    nanoseconds = int(f"{fraction:0<9}"[:9]) + 1
    return f"{seconds + nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def has_terminal(details: Mapping[str, Any]) -> bool:
    """Say whether a container has a terminal, by the Engine's answer to inspect."""
    return bool((details.get("Config") or {}).get("Tty"))
