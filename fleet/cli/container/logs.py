"""`fleet container logs`: what a container has said, and says."""

from datetime import timedelta
from typing import Any

import click

from fleet.cli import attending, invocation, lines, selection
from fleet.cli.grammar import Command
from fleet.cli.types import LINES, SINCE


@click.command(
    "logs",
    cls=Command,
    examples=(
        "fleet container logs web --host edge-7",
        "fleet container logs web --host edge-7 -f --tail 20",
        "fleet container logs web -l env=prod --since 10m -t",
        "fleet container logs web --host edge-7 --tail all > web.log",
    ),
)
@click.argument("container")
@selection.options
@click.option("-f", "--follow", is_flag=True, help="Go on with what it says, until it stops or Ctrl-C.")
@click.option("--tail", type=LINES, default=1000, show_default=True, help="Begin with so many of the last lines.")
@click.option("--since", type=SINCE, help="Only what was said within this time, or since this moment.")
@click.option("-t", "--timestamps", is_flag=True, help="Write the time before each line.")
@selection.offline_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    container: str,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    follow: bool,
    tail: int | str,
    since: Any,
    timestamps: bool,
    offline: str,
) -> None:
    """Print what a container has said, on one host or several.

    What it said on standard error goes there. With several hosts each line begins with its host. Who reads too slowly,
    or follows a container that says more than half a megabyte a second for long, is told how many lines were dropped,
    and where; a line of which only a part came has "…" in place of the rest. On a terminal characters that could move
    or recolor it are escaped; a pipe gets them as they are.
    """
    from fleet.client import Fleet
    from fleet.contracts.container_output import LOGS

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    arguments: dict[str, Any] = {
        "container": container,
        "follow": follow,
        "tail": tail,
        "timestamps": timestamps,
    }
    if isinstance(since, timedelta):
        arguments["last_seconds"] = since.total_seconds()
    elif since is not None:
        arguments["since"] = since.isoformat()
    with Fleet(invocation.current().settings()) as fleet:
        with attending.pushed(fleet, LOGS, where=where, arguments=arguments, offline=offline) as batch:
            lines.tell(fleet.output(*batch.run_ids), [result.host for result in batch.results])
            found = attending.ended(batch, bar=False)
        ctx.exit(attending.tell_failures(batch, found))
