"""`fleet approval approve` and `fleet approval deny`: a principal's answer about a run that waits for one.

What is shown, and answered for, is the very message that its principal signed (`fleet.parked`).
"""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from fleet import clock
from fleet.cli import invocation, render, standing, tables, when
from fleet.cli.grammar import Command
from fleet.cli.types import DURATION

if TYPE_CHECKING:
    from fleet.answers import Says
    from fleet.client import Fleet, Watch
    from fleet.parked import Parked

#: How long the host's answer is waited for.
_ANSWERED_WITHIN_SECONDS = 10.0
_POLL_SECONDS = 0.2
_REASON = click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")


@click.command(
    "approve",
    cls=Command,
    examples=("fleet approval approve 5f0d1c2b3a49", "fleet approval approve 5f0d1c2b3a49 --reason 'ticket 4711' -y"),
)
@click.argument("run_id", metavar="RUN")
@_REASON
@click.option("--within", type=DURATION, default="15m", show_default=True, help="It must begin within this time.")
def approve(*, run_id: str, reason: str, within: timedelta) -> None:
    """Let a run begin, once, that somebody else has asked for.

    The host checks it: who you are, that your credential lets you approve that, and that the request is the one shown.
    At a terminal it shows the request and asks; a program that runs this has made up its mind.
    """

    def say(fleet: "Fleet", asked: "Parked") -> None:
        waits = max(0.0, asked.not_before - time.time())
        fleet.approve(asked.run_id, digest=asked.digest, reason=reason, run_within=waits + within.total_seconds())

    _answer(run_id, "approve", say)


@click.command("deny", cls=Command, examples=("fleet approval deny 5f0d1c2b3a49 --reason 'not during office hours'",))
@click.argument("run_id", metavar="RUN")
@_REASON
def deny(*, run_id: str, reason: str) -> None:
    """End a run that waits for approval; it never begins."""

    def say(fleet: "Fleet", asked: "Parked") -> None:
        fleet.deny(asked.run_id, digest=asked.digest, reason=reason)

    _answer(run_id, "deny", say)


def _answer(run_id: str, says: "Says", say: "Callable[[Fleet, Parked], None]") -> None:
    from fleet.client import Fleet

    settings = invocation.current().settings()
    with Fleet(settings) as fleet:
        asked = _asked(fleet, run_id)
        _show(asked)
        if not invocation.current().yes and sys.stdin.isatty():
            invocation.confirm(f"{says.capitalize()} it?")
        with fleet.watch() as watch:
            say(fleet, asked)
            _tell(_event(watch, asked.run_id, fleet.dispatcher.principal), asked, says)


def _asked(fleet: "Fleet", run_id: str) -> "Parked":
    """Return a request as its principal signed it; raises as `parked.waiting` and `parked.Waiting.checked` do."""
    from fleet import parked

    with invocation.database(fleet.settings) as session:
        waiting = parked.waiting(session, run_id)
    fleet.dispatcher.members()  # the fleet's newest word: a former key must not vouch for anything
    return waiting.checked(fleet.dispatcher.signer.trust)


def _show(asked: "Parked") -> None:
    """Say on stderr what is answered for: data that programs read goes elsewhere."""
    if invocation.current().quiet:
        return
    arguments = dict(asked.arguments)
    argv = arguments.pop("argv", None)
    rows: list[tuple[str, Any]] = [
        ("Who", f"{asked.principal} ({asked.level})"),
        ("Host", asked.host),
        ("Task", asked.task),
    ]
    if isinstance(argv, list):
        rows += [(f"Argument {number}" if number else "Program", repr(each)) for number, each in enumerate(argv)]
    rows += [("Arguments", arguments)] if arguments else []
    rows += [("Time limit", when.span(asked.limit_seconds))] if asked.limit_seconds else []
    rows += standing.repeats(asked.max_retries)
    rows += [("Begins", when.both(clock.from_unix(asked.not_before)))] if asked.not_before else []
    rows += [("Why", asked.description)] if asked.description else []
    tables.show_detail(rows, stderr=True)


def _event(watch: "Watch", run_id: str, approver: str) -> dict[str, Any] | None:
    """Return what the control plane records of the host's answer to that approver; None where nothing comes in time."""
    from fleet import answers

    ends = time.monotonic() + _ANSWERED_WITHIN_SECONDS
    while time.monotonic() < ends:
        for event in watch.events(timeout=_POLL_SECONDS):
            if event.get("run") == run_id and answers.concerns(event["event"], event["data"], approver):
                return event
    return None


def _tell(event: dict[str, Any] | None, asked: "Parked", says: "Says") -> None:
    """Say that the host has taken the answer, or that it has not done so yet; raises as `answers.require_taken`."""
    from fleet import answers

    if event is None:
        render.warn(
            f"{asked.host} has not answered yet; `fleet approval show {asked.run_id}` tells when it has, and it does "
            "so when it is back"
        )
        return
    answers.require_taken(event["event"], event["data"], asked, says)
    render.say(f"approved; {asked.host} runs it once" if says == "approve" else "denied; it never runs")
