"""Approving: what whoever waits is told of runs that wait for somebody else's approval."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fleet import redaction
from fleet.cli import invocation, steps

if TYPE_CHECKING:
    from fleet.client import Fleet
    from fleet.contracts import AnyContract


#: Why something is asked for; whoever approves reads it before they answer.
reason_option = click.option(
    "--reason", default="", metavar="TEXT", help="What it is for, for the record and for who approves."
)


@contextmanager
def announced(fleet: "Fleet", contract: "AnyContract") -> Iterator[steps.Follower]:
    """Have it said when runs are parked and approved; the block pushes, and starts the follower with their ids."""
    level = fleet.dispatcher.signer.identity.level
    wanted = contract.governed or not level.may(contract.risk)  # else nobody is asked, but by a rule of the fleet's
    wanted = wanted and not invocation.current().quiet  # the follower has a thread of its own, and no invocation
    with steps.following(fleet, wanted=wanted, tell=_tell) as follower:
        yield follower


def _tell(event: Mapping[str, Any]) -> None:
    data = event["data"]
    match event["event"]:
        case "run.awaiting_approval":
            rule = (data.get("verdict") or {}).get("rule", "")
            says = f"waits for approval ({rule}); somebody else says `fleet approval approve {event['run']}`"
        case "run.approved":
            says = f"approved by {data.get('by')}" + (f": {data['reason']}" if data.get("reason") else "")
        case _:
            return
    click.echo(redaction.for_terminal(f"{event['host']}: {says}"), err=True)
