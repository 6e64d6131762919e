"""Progress on stderr, for people only, and only for what takes longer than a second."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fleet import redaction
from fleet.cli import invocation, tables

#: Quicker than this, a bar would only flicker.
PATIENCE_SECONDS = 1.0


@contextmanager
def bar(text: str, *, total: int | None = None, wanted: bool = True) -> Iterator[Callable[[str], None]]:
    """Show a bar (a spinner where `total` is None) until the block ends; call what it yields once for each item done.

    Nothing is shown with `-q`, or where stderr is no terminal.
    """
    if not wanted or invocation.current().quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    counted = (BarColumn(bar_width=20), MofNCompleteColumn()) if total else ()
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *counted,
        TimeElapsedColumn(),
        console=tables.console(stderr=True),
        transient=True,
    )
    task = shown.add_task(redaction.for_terminal(text), total=total)
    # Starting and stopping come from two threads: a late start must not outlive the block.
    lock, over = threading.Lock(), threading.Event()

    def start() -> None:
        with lock:
            if not over.is_set():
                shown.start()

    timer = threading.Timer(PATIENCE_SECONDS, start)
    timer.daemon = True
    timer.start()

    def advance(doing: str) -> None:
        shown.update(task, advance=1, description=redaction.for_terminal(doing) if doing else None)

    try:
        yield advance
    finally:
        timer.cancel()
        with lock:
            over.set()
            shown.stop()
