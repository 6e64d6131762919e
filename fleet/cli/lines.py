"""Lines: what runs say, printed as it comes, line by line, each to the stream that it was said on.

On a terminal everything is escaped that could move, recolor or reorder it; a pipe or a file gets what was said.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from fleet import redaction
from fleet.cli import invocation, render, steps

if TYPE_CHECKING:
    from fleet.client import Said


#: A line is printed in parts of so many characters where it has no end.
_LONGEST_LINE = 1024 * 1024


class Lines:
    """Prints the output of one run, or of several with the host before each line."""

    def __init__(self, hosts: Sequence[str]) -> None:
        several = len(set(hosts)) > 1
        self._width = max(map(len, hosts), default=0) if several else 0
        #: (run, stream) → a line that has not ended
        self._begun: dict[tuple[str, str], str] = {}
        #: run → attempt
        self._attempts: dict[str, int] = {}

    def tell(self, said: "Said") -> None:
        """Print one entry: whole lines, and the rest of a line when it has come."""
        if said.attempt != self._attempts.setdefault(said.run_id, said.attempt):
            self.end(said.run_id, said.host)
            self._attempts[said.run_id] = said.attempt
        if said.missed:
            self.end(said.run_id, said.host)
            self._tell_gap(said.host, said.missed)
        if said.kind != "text":
            self._print(said.host, "stdout", f"{said.kind} {steps.brief(said.data)}", data=dict(said.data))
            return
        for name, text in _pieces(said):
            *lines, rest = (self._begun.pop((said.run_id, name), "") + text).split("\n")
            for line in lines:
                self._print(said.host, name, line)
            if len(rest) > _LONGEST_LINE:
                self._print(said.host, name, rest)
            elif rest:
                self._begun[said.run_id, name] = rest

    def end(self, run_id: str, host: str) -> None:
        """Print what a run left without a line break."""
        for key in [key for key in self._begun if key[0] == run_id]:
            self._print(host, key[1], self._begun.pop(key))

    def _print(self, host: str, name: str, line: str, *, data: dict[str, Any] | None = None) -> None:
        line = line.removesuffix("\r")  # as terminals end theirs
        if invocation.current().format != "table":
            _print_record(host, stream=name, line=None if data else line, data=data)
            return
        stream = sys.stderr if name == "stderr" else sys.stdout
        stream.write(f"{self._prefix(host)}{_safe(line, stream)}\n")
        stream.flush()

    def _tell_gap(self, host: str, missed: int) -> None:
        if invocation.current().format != "table":
            _print_record(host, dropped=missed)
            return
        counted = "1 line was" if missed == 1 else f"{missed:,} lines were"
        sys.stderr.write(f"{self._prefix(host)}… {counted} dropped here\n")

    def _prefix(self, host: str) -> str:
        return f"{host:<{self._width}} | " if self._width else ""


def tell(output: "Iterable[Said]", hosts: Sequence[str]) -> None:
    """Print all that is said, as it comes."""
    printed = Lines(hosts)
    runs: dict[str, str] = {}
    for said in output:
        runs[said.run_id] = said.host
        printed.tell(said)
    for run_id, host in runs.items():
        printed.end(run_id, host)


def _print_record(host: str, **fields: Any) -> None:
    empty = {"stream": None, "line": None, "data": None, "dropped": None}
    render.item({"host": host, **empty, **fields}, line="", key="line")


def _pieces(said: "Said") -> list[tuple[str, str]]:
    """Return (stream, text) of an entry; what has another form, because a host says what it likes, is left out."""
    pieces = said.data.get("pieces")
    return [
        ("stderr" if piece[0] == "stderr" else "stdout", piece[1])
        for piece in (pieces if isinstance(pieces, list) else ())
        if isinstance(piece, list) and len(piece) == 2 and isinstance(piece[1], str)
    ]


def _safe(line: str, stream: TextIO) -> str:
    if not stream.isatty():
        encoding = stream.encoding or "utf-8"
        return line.encode(encoding, "replace").decode(encoding)
    # A tab moves to the right only, and many logs are set with them.
    return "\t".join(redaction.for_terminal(part) for part in line.split("\t"))
