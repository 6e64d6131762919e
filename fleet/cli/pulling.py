"""Pulling: bars on stderr that show how far pulls are: one for each host, or one and those of its layers."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fleet import redaction
from fleet.cli import invocation, tables

if TYPE_CHECKING:
    from fleet.client import Said
    from fleet.contracts.images import Layer, PullEntry


@contextmanager
def bars(hosts: Sequence[str]) -> "Iterator[Callable[[Said], None]]":
    """Show bars until the block ends; call what it yields with each entry of the pulls' output.

    Nothing is shown with `-q`, or where stderr is no terminal.
    """
    if invocation.current().quiet or not sys.stderr.isatty() or not hosts:
        yield lambda _said: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    shown = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=tables.console(stderr=True),
        transient=True,
    )
    whole = {host: shown.add_task(redaction.for_terminal(host), total=100, state="waiting") for host in hosts}
    layers = _Layers(shown) if len(hosts) == 1 else None

    def show(said: "Said") -> None:
        if (entry := _entry(said)) is None:
            return
        state = "done" if entry.percent >= 100 else "pulling"
        shown.update(whole[said.host], completed=entry.percent, state=state)
        if layers:
            layers.show(entry.layers)

    with shown:
        yield show


class _Layers:
    """A bar for each layer that is not there yet."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._tasks: dict[str, Any] = {}

    def show(self, layers: "Sequence[Layer]") -> None:
        for layer in layers:
            if layer.state == "there":
                continue
            if layer.id not in self._tasks:
                name = redaction.for_terminal(layer.id[:12])
                self._tasks[layer.id] = self._shown.add_task(f"  {name}", total=None, state="")
            done = layer.state in {"downloaded", "done"}
            total = 1 if done else layer.total
            completed = 1 if done else (layer.current or 0)
            self._shown.update(
                self._tasks[layer.id],
                total=total,
                completed=min(completed, total) if total else 0,
                state=redaction.for_terminal(layer.state),
            )


def _entry(said: "Said") -> "PullEntry | None":
    from pydantic import ValidationError

    from fleet.contracts.images import PullEntry

    try:
        return PullEntry.model_validate(said.data) if said.kind == "pull" else None
    except ValidationError:  # a newer host says more, a stolen one what it likes
        return None
