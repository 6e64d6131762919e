"""Outcomes: what a command that has ended comes to: the result for whoever asked, and the record of the session.

Made of the supervisor's word and of what it kept of the output. A program that ended by itself has succeeded as a run,
whatever its exit code: that is the caller's to judge.
"""

import codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fleet.contracts.shell import LARGEST_REPLY, CommandResult
from fleet.contracts.verdicts import RECORDED_CHARACTERS, SessionEnded
from workers.host.capture import Written
from workers.host.claim import Claim
from workers.host.spool import Ending

#: Of the two texts as JSON; the rest of a reply takes less than is left.
_LARGEST_TEXTS = LARGEST_REPLY - 4096
#: What shells say of a program that a signal ended, beside its number.
_BY_SIGNAL = 128
#: As `contracts.verdicts.SessionEnded` has it.
_LONGEST_DETAIL = 1000

Outcome = Literal["exited", "done", "failed", "time_limit", "cancelled", "unknown"]


@dataclass(frozen=True)
class _Kept:
    """What is kept of one stream."""

    known: Written
    head: bytes
    tail: bytes

    def text(self, part: float) -> tuple[str, bool]:
        """Return so much of it as text, and whether something is missing."""
        head, tail = self.head, self.tail
        kept = len(head) + len(tail)
        if part >= 1 and kept == self.known.total:
            return (head + tail).decode("utf-8", "replace"), False
        if part < 1:
            whole, half = head + tail if kept == self.known.total else b"", int(part * kept / 2)
            head, tail = (whole or head)[:half], (whole or tail)[-half:] if half else b""
        missing = self.known.total - len(head) - len(tail)
        if missing <= 0:
            return (head + tail).decode("utf-8", "replace"), False
        # Half a character at a cut is none that was written.
        before = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
        begins = next((place for place, byte in enumerate(tail[:4]) if byte & 0xC0 != 0x80), 0)
        after = tail[begins:].decode("utf-8", "replace")
        return f"{before}\n… {missing:,} bytes left out …\n{after}", True


def result(ending: Ending, kept: bytes) -> CommandResult:
    """Return what a program did and wrote, as far as a reply holds it."""
    streams = _streams(ending, kept)
    parts = dict.fromkeys(streams, 1.0)
    while True:
        texts = {name: stream.text(parts[name]) for name, stream in streams.items()}
        sizes = {name: len(json.dumps(text)) for name, (text, _cut) in texts.items()}
        if sum(sizes.values()) <= _LARGEST_TEXTS:
            break
        larger, smaller = sorted(sizes, key=sizes.__getitem__, reverse=True)
        room = max(_LARGEST_TEXTS // 2, _LARGEST_TEXTS - sizes[smaller])
        parts[larger] *= 0.95 * room / sizes[larger]
    (stdout, cut), (stderr, cut_too) = texts["stdout"], texts["stderr"]
    code = ending.exit_status if ending.signal is None else _BY_SIGNAL + ending.signal
    return CommandResult(
        exit_code=0 if code is None else code,
        signal=ending.signal,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=streams["stdout"].known.total,
        stderr_bytes=streams["stderr"].known.total,
        truncated=cut or cut_too,
        stdout_sha256=streams["stdout"].known.sha256,
        stderr_sha256=streams["stderr"].known.sha256,
        duration_seconds=ending.duration_seconds,
    )


def session(claim: Claim, outcome: Outcome, said: CommandResult, *, detail: str = "") -> SessionEnded:
    """Return the record of an attempt at which a program ran."""
    stdout, stderr = shortened(said.stdout), shortened(said.stderr)
    return SessionEnded(
        outcome=outcome,
        started_at=claim.started_at,
        duration_seconds=said.duration_seconds,
        exit_code=said.exit_code if outcome == "exited" else None,
        detail=detail[:_LONGEST_DETAIL],
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=said.stdout_bytes,
        stderr_bytes=said.stderr_bytes,
        stdout_sha256=said.stdout_sha256,
        stderr_sha256=said.stderr_sha256,
        truncated=said.truncated or (stdout, stderr) != (said.stdout, said.stderr),
    )


def unheard(claim: Claim, outcome: Outcome, *, detail: str, duration_seconds: float = 0.0) -> SessionEnded:
    """Return the record of an attempt of whose output nothing is known, or that never began."""
    return SessionEnded(
        outcome=outcome,
        started_at=claim.started_at,
        duration_seconds=duration_seconds,
        detail=detail[:_LONGEST_DETAIL],
    )


def operation(
    claim: Claim, outcome: Outcome, *, detail: str, reply: Mapping[str, Any], duration_seconds: float
) -> SessionEnded:
    """Return the record of an operation on a file; size and digest are those of the content, where it has one."""
    return SessionEnded(
        outcome=outcome,
        started_at=claim.started_at,
        duration_seconds=duration_seconds,
        detail=detail[:_LONGEST_DETAIL],
        stdout_bytes=int(reply.get("size", 0)),
        stdout_sha256=str(reply.get("sha256", "")),
    )


def shortened(text: str) -> str:
    """Return as much of a text as the record keeps."""
    if len(text) <= RECORDED_CHARACTERS:
        return text
    half = RECORDED_CHARACTERS // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


def _streams(ending: Ending, kept: bytes) -> dict[str, _Kept]:
    """Take apart what is kept; on a disk that broke it is less than was said, and the rest is missing."""
    streams, place = {}, 0
    for name in ("stdout", "stderr"):
        known = (ending.written or {}).get(name) or Written(0, "", 0, 0)
        middle, end = place + known.head, place + known.head + known.tail
        streams[name] = _Kept(known, kept[place:middle], kept[middle:end])
        place = end
    return streams
