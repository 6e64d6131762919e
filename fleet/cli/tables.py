"""Tables and details for people: they fit the terminal, and no text of a host can move its cursor or its colors.

On a terminal the columns marked `shrinks` are cut with an ellipsis and those with `from_width` appear only where there
is room. Without a terminal nothing is cut: the next program in the pipe needs the words.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet import redaction
from fleet.cli import invocation, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Record = Mapping[str, Any]

#: Wider than any row; what a pipe gets is not wrapped.
_PIPE_WIDTH = 100_000

STYLES = {
    "online": "green",
    "stale": "yellow",
    "offline": "red",
    "revoked": "red",
    "unknown": "magenta",
    "queued": "cyan",
    "awaiting_approval": "yellow",
    "pending": "yellow",
    "approved": "green",
    "denied": "red",
    "refused": "red",
    "allow": "green",
    "ask": "yellow",
    "deny": "red",
    "accepted": "cyan",
    "running": "blue",
    "recovering": "magenta",
    "succeeded": "green",
    "failed": "red",
    "rejected": "red",
    "expired": "yellow",
    "cancelled": "yellow",
    "interrupted": "magenta",
    "active": "green",
    "paused": "yellow",
    "draining": "yellow",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its heading, and how its text is taken from a record."""

    heading: str
    value: Callable[[Record], object]
    shrinks: bool = False
    right: bool = False
    #: whether the cell is a word of `STYLES`
    state: bool = False
    #: shown on terminals at least this wide, and in a pipe
    from_width: int = 0
    #: shown on terminals narrower than this only; 0 for no limit
    to_width: int = 0
    #: whether a long text goes on in the next line instead of being cut
    wraps: bool = False


def console(*, stderr: bool = False) -> "Console":
    """Return a console that colors only on a terminal, and not with NO_COLOR or `--no-color`."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - rich calls this where it caught it, and would exit with 1

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    options: dict[str, Any] = {"file": stream, "width": width, "highlight": False, "markup": False, "emoji": False}
    made = _Console(**options)
    plain = made.no_color or invocation.current().no_color
    return _Console(**options, color_system=None) if plain else made


def styled(value: object, style: str = "") -> "Text":
    """Return a value as a safe Text."""
    from rich.text import Text

    return Text(redaction.for_terminal(str(value)), style=style)


def show(records: Sequence[Record], *, columns: Sequence[Column]) -> None:
    """Print a table."""
    print_table(made(records, columns=columns, width=console().width))


def made(records: Sequence[Record], *, columns: Sequence[Column], width: int) -> "Table":
    """Return a table that is so many characters wide at most."""
    from rich.table import Table
    from rich.text import Text

    shown = [c for c in columns if c.from_width <= width < (c.to_width or _PIPE_WIDTH + 1)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for column in shown:
        table.add_column(
            Text(column.heading),
            justify="right" if column.right else "left",
            no_wrap=not (column.shrinks or column.wraps),
            overflow="fold" if column.wraps else "ellipsis",
        )
    for record in records:
        table.add_row(*(_cell(column, record) for column in shown))
    return table


def print_table(table: "Table") -> None:
    """Print a rich table; without the spaces at the ends of its lines where a program reads them."""
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        out.file.write(f"{line.rstrip()}\n")


def show_detail(rows: Iterable[tuple[str, Any]], *, stderr: bool = False) -> None:
    """Print labels and values, one a line; a list or dictionary follows as an indented block, nothing is a dash."""
    from rich.text import Text

    out = console(stderr=stderr)
    kept = list(rows)
    width = max(len(label) for label, _ in kept) + 2
    for label, value in kept:
        head = styled(f"{label + ':':<{width}}", "bold")
        if isinstance(value, dict | list | tuple) and value:
            block = plain.readable(value).replace("\n", "\n  ")
            out.print(head + Text(f"\n  {block}"), soft_wrap=True)
        else:
            word = "-" if value is None or value in ("", {}, [], ()) else value
            out.print(head + styled(word, STYLES.get(str(word), "")), soft_wrap=True)


def labels(value: Mapping[str, str], *, none: str = "-") -> str:
    return ",".join(f"{key}={text}" for key, text in sorted(value.items())) or none


def _cell(column: Column, record: Record) -> "Text":
    value = column.value(record)
    word = "-" if value is None or value == "" else str(value)
    cell = styled(word, STYLES.get(word, "") if column.state else "")
    if not column.wraps:
        # The column may shrink, the cell may not wrap: one line a record.
        cell.no_wrap, cell.overflow = True, "ellipsis"
    return cell
