"""Lines: what runs say, printed as it comes, line by line, each to the stream that it was said on.

On a terminal everything is escaped that could move, recolor or reorder it; a pipe or a file gets what was said.

What is missing is told of where it is missing, and a line of which only a part could be had ends or begins with "…": in
a file, too, nobody takes it for a whole one.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from fleet import names, redaction
from fleet.cli import invocation, render, steps

if TYPE_CHECKING:
    from fleet.client import Said


#: A line is printed in parts of so many characters where it has no end.
_LONGEST_LINE = 1024 * 1024
#: Stands for the rest of a line.
_CUT = "…"
#: By so many of the last characters it is seen whether the end of an output has come.
_COMPARED = 200


class Lines:
    """Prints the output of one run, or of several with the host before each line."""

    def __init__(self, hosts: Sequence[str]) -> None:
        several = len(set(hosts)) > 1
        self._width = max(map(len, hosts), default=0) if several else 0
        #: (run, stream) → a line that has not ended
        self._begun: dict[tuple[str, str], str] = {}
        #: run → attempt
        self._attempts: dict[str, int] = {}
        #: runs of which something is missing
        self._gaps: set[str] = set()
        #: (run, stream) → how many characters were said, and the last of them
        self._said: dict[tuple[str, str], tuple[int, str]] = {}

    def follow(self, output: "Iterable[Said]") -> None:
        """Print all that is said, as it comes; a line that has not ended waits for its end."""
        for said in output:
            self.tell(said)

    def tell(self, said: "Said") -> None:
        """Print one entry: whole lines, and the rest of a line when it has come."""
        if said.attempt != self._attempts.setdefault(said.run_id, said.attempt):
            self._end(said.run_id)
            self._attempts[said.run_id] = said.attempt
            self._gaps.discard(said.run_id)
            self._said = {key: value for key, value in self._said.items() if key[0] != said.run_id}
        if said.missed:
            self._gaps.add(said.run_id)
            self._end(said.run_id, mark=_CUT)
            self._tell_gap(said.host, said.missed)
        if said.kind != "text":
            self._print(said.host, "stdout", f"{said.kind} {steps.brief(said.data)}", data=dict(said.data))
            return
        cut = set(said.within) if said.missed else set()
        for name, text in _pieces(said):
            if name in cut:
                cut.remove(name)
                self._begun[said.run_id, name] = _CUT
            self._take(said.run_id, name, text)

    def complete(self, run_id: str, reply: Mapping[str, Any]) -> None:
        """Print what a command wrote and nobody could follow: its result has it, where it was not too much to be kept.

        Readers who are late, and those of a worker that was started anew meanwhile, find the beginning only.
        """
        texts = {name: str(reply.get(name, "")) for name in ("stdout", "stderr")}
        told = {name: self._said.get((run_id, name), (0, "")) for name in texts}
        if run_id not in self._gaps and not reply.get("truncated"):
            for name, text in texts.items():
                self._take(run_id, name, text[told[name][0] :])
        elif any(text[-_COMPARED:] != told[name][1] for name, text in texts.items()):
            self._end(run_id, mark=_CUT)
            host = names.host_of_run(run_id)
            render.warn(f"{host}: the end of what it wrote is missing here; `fleet audit session {run_id}` has it")

    def write(self, host: str, name: str, text: str) -> None:
        """Print a whole text that was said on the stream of that name; a pipe gets that of a single host as it is."""
        stream = _stream(name)
        if not self._width and invocation.current().format == "table" and not stream.isatty():
            stream.write(_safe(text, stream))
            stream.flush()
        elif text:
            for line in text.removesuffix("\n").split("\n"):
                self._print(host, name, line)

    def finish(self) -> None:
        """Print what runs left without a line break."""
        for run_id in {run_id for run_id, _name in self._begun}:
            self._end(run_id)

    def _end(self, run_id: str, *, mark: str = "") -> None:
        for key in [key for key in self._begun if key[0] == run_id]:
            self._print(names.host_of_run(run_id), key[1], self._begun.pop(key) + mark)

    def _take(self, run_id: str, name: str, text: str) -> None:
        """Print the lines that have ended by now."""
        key = (run_id, name)
        count, last = self._said.get(key, (0, ""))
        self._said[key] = count + len(text), (last + text)[-_COMPARED:]
        *lines, rest = (self._begun.pop(key, "") + text).split("\n")
        host = names.host_of_run(run_id)
        for line in lines:
            self._print(host, name, line)
        if len(rest) > _LONGEST_LINE:
            self._print(host, name, rest)
        elif rest:
            self._begun[key] = rest

    def _print(self, host: str, name: str, line: str, *, data: dict[str, Any] | None = None) -> None:
        line = line.removesuffix("\r")  # as terminals end theirs
        if invocation.current().format != "table":
            _print_record(host, stream=name, line=None if data else line, data=data)
            return
        stream = _stream(name)
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
    """Print all that is said, as it comes, to its end."""
    printed = Lines(hosts)
    printed.follow(output)
    printed.finish()


def _print_record(host: str, **fields: Any) -> None:
    empty = {"stream": None, "line": None, "data": None, "dropped": None}
    render.item({"host": host, **empty, **fields}, line="", key="line")


def _stream(name: str) -> TextIO:
    return sys.stderr if name == "stderr" else sys.stdout


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
