"""Steps: audit events as lines for people, in lists and as they come."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from fleet import redaction
from fleet.cli import when

if TYPE_CHECKING:
    from fleet.address import Address
    from fleet.client import Fleet, Watch

FINAL = frozenset({"run.succeeded", "run.failed", "run.rejected", "run.expired", "run.cancelled", "run.unknown"})
#: How long after the last result its last step may still arrive: the control plane records it before it tells it.
GRACE_SECONDS = 2.0
#: Fields that have a column of their own, or that nobody reads.
_TOLD_ELSEWHERE = frozenset({"host", "submitted_by", "submitted_at", "message", "batch", "signed", "digest"})
#: Fields that are moments, in unix seconds.
_MOMENTS = frozenset({"approve_before", "run_before", "not_before", "not_after", "started_at"})
#: How soon the thread notices that it is to stop.
_POLL_SECONDS = 0.2


def brief(data: Mapping[str, Any], *, limit: int = 200) -> str:
    """Return the data of an event or reply in one line: `step=pulling percent=40`."""
    parts = []
    for key, value in data.items():
        if key in _TOLD_ELSEWHERE or key.endswith("_sha256") or value in (None, "", {}, [], ()):
            continue
        if key == "verdict" and isinstance(value, Mapping):
            parts.append(f"verdict={value.get('decision')} rule={value.get('rule')}")
        elif key == "duration_seconds" and isinstance(value, int | float):
            parts.append(f"took={when.span(value)}")
        elif key in _MOMENTS and isinstance(value, int | float):
            parts.append(f"{key}={datetime.fromtimestamp(value).astimezone():%Y-%m-%d %H:%M:%S %Z}")
        else:
            parts.append(f"{key}={value if isinstance(value, str | int | float) else _count(value)}")
    line = " ".join(parts)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _count(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{len(value)}]"
    return "{" + ",".join(str(key) for key in list(value)[:3]) + ("…}" if len(value) > 3 else "}")


def moment(event: Mapping[str, Any]) -> datetime:
    """Return when an event happened, in local time."""
    return datetime.fromisoformat(str(event["occurred_at"])).astimezone()


def line(event: Mapping[str, Any], *, day: bool = False) -> str:
    """Return one event (`audit.to_wire`) as a safe line; with `day` its date stands before the time."""
    at = f"{moment(event):%Y-%m-%d %H:%M:%S}" if day else f"{moment(event):%H:%M:%S}"
    words = (at, event.get("host") or event.get("actor") or "", event["event"], brief(event["data"]))
    return redaction.for_terminal("  ".join(str(word) for word in words if word))


#: Says what there is to say of one event.
Tell = Callable[[Mapping[str, Any]], None]


def tell_line(event: Mapping[str, Any]) -> None:
    """Print an event on stderr."""
    click.echo(line(event), err=True)


class Follower:
    """Tells the steps of certain runs on stderr, in a thread of its own."""

    def __init__(self, watch: "Watch | None", *, broker: "Address", tell: Tell = tell_line) -> None:
        self._watch = watch
        self._say = tell
        self._broker = broker
        self._unfinished: set[str] = set()
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, run_ids: Sequence[str]) -> None:
        """Begin to tell; what was published since the watch was opened comes first."""
        if self._watch is None or not run_ids:
            return
        self._unfinished = set(run_ids)
        # Click keeps the call's options, such as --quiet, for the thread of the command alone.
        context = click.get_current_context(silent=True)
        self._thread = threading.Thread(target=self._run, args=(context,), name="follower", daemon=True)
        self._thread.start()

    def stop(self, *, grace: float = 0.0) -> None:
        """Stop; with grace, let the last steps arrive first."""
        if self._thread is not None:
            self.stopped.wait(grace)
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def _run(self, context: click.Context | None) -> None:
        from fleet import errors
        from fleet.broker.connection import translated

        if context is not None:
            click.globals.push_context(context)
        runs = frozenset(self._unfinished)
        try:
            with translated(self._broker):
                while self._unfinished and not self._stopping.is_set():
                    self._tell(runs)
        except errors.BrokerUnavailable as exc:
            click.echo(f"fleet: warning: the steps cannot be followed any more: {exc}", err=True)
        finally:
            self.stopped.set()

    def _tell(self, runs: frozenset[str]) -> None:
        assert self._watch is not None
        for event in self._watch.events(timeout=_POLL_SECONDS):
            if event.get("run") in runs:
                self._say(event)
                if event["event"] in FINAL:
                    self._unfinished.discard(event["run"])
            if not self._unfinished or self._stopping.is_set():
                return


@contextmanager
def following(fleet: "Fleet", *, wanted: bool, tell: Tell = tell_line) -> Iterator[Follower]:
    """Open a watch before anything is pushed, so that no step is missed."""
    broker = fleet.dispatcher.broker
    if not wanted:
        yield Follower(None, broker=broker)
        return
    with fleet.watch() as watch:
        follower = Follower(watch, broker=broker, tell=tell)
        try:
            yield follower
        finally:
            follower.stop()
