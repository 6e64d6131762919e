"""`fleet container stats`: what containers use, as a table that refreshes, or once."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import attending, invocation, render, selection, tables
from fleet.cli.grammar import Command
from fleet.cli.sizes import size
from fleet.cli.tables import Column, Record

if TYPE_CHECKING:
    from fleet.client import Batch, Fleet, Said


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}%"


def _memory(row: Record) -> str | None:
    used, limit = row["memory_bytes"], row["memory_limit_bytes"]
    return None if used is None else f"{size(used)} / {size(limit)}"


def _share(row: Record) -> str | None:
    used, limit = row["memory_bytes"], row["memory_limit_bytes"]
    return _percent(100 * used / limit) if used is not None and limit else None


def _pair(row: Record, first: str, second: str) -> str | None:
    return None if row[first] is None else f"{size(row[first])} / {size(row[second])}"


_COLUMNS = (
    Column(heading="HOST", value=lambda row: row["host"], shrinks=True),
    Column(heading="NAME", value=lambda row: row["name"], shrinks=True),
    Column(heading="CPU", value=lambda row: _percent(row["cpu_percent"]), right=True),
    Column(heading="MEMORY", value=_memory, right=True),
    Column(heading="MEM", value=_share, right=True, from_width=100),
    Column(heading="NET IN / OUT", value=lambda row: _pair(row, "network_in_bytes", "network_out_bytes"), right=True),
    Column(
        heading="BLOCK R / W",
        value=lambda row: _pair(row, "block_read_bytes", "block_written_bytes"),
        right=True,
        from_width=100,
    ),
    Column(heading="PIDS", value=lambda row: row["pids"], right=True),
)


@click.command(
    "stats",
    cls=Command,
    examples=(
        "fleet container stats --host edge-7",
        "fleet container stats web db -l env=prod --once",
        "fleet container stats --all --once -o json",
    ),
)
@click.argument("containers", nargs=-1, metavar="[CONTAINER]...")
@selection.options
@click.option("--once", is_flag=True, help="Look once; also where the output is no terminal, or no table.")
@selection.offline_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    containers: tuple[str, ...],
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    once: bool,
    offline: str,
) -> None:
    """Show what containers use of processors, memory, network and disks; without names, all that run.

    On a terminal the table refreshes every two seconds until Ctrl-C. A processor is 100 %: two that are busy all the
    time are 200 %. Network and disks are counted since the container was started.
    """
    from fleet.client import Fleet
    from fleet.contracts.container_output import STATS

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    live = not once and sys.stdout.isatty() and invocation.current().format == "table"
    arguments = {"containers": list(containers), "follow": live}
    with Fleet(invocation.current().settings()) as fleet:
        with attending.pushed(fleet, STATS, where=where, arguments=arguments, offline=offline) as batch:
            if live:
                _refresh(fleet, batch)
            found = attending.ended(batch, bar=not live)
        if live:
            ctx.exit(attending.tell_failures(batch, found))
        rows = [{"host": each.host, **row} for each in found if each.reply for row in each.reply["usage"]]
        if rows or not any(each.error for each in found):
            render.listing(_sorted(rows), columns=_COLUMNS, key="docker_id", empty="no container runs")
        ctx.exit(attending.tell_failures(batch, found))


def _refresh(fleet: "Fleet", batch: "Batch") -> None:
    """Show the latest look of each host, until all runs have ended."""
    from rich.live import Live

    out = tables.console()
    looks = {result.id: _Look() for result in batch.results}
    with Live(console=out, auto_refresh=False) as live:
        for said in fleet.output(*batch.run_ids):
            if looks[said.run_id].hear(said):
                rows = [row for look in looks.values() for row in look.rows]
                live.update(tables.made(_sorted(rows), columns=_COLUMNS, width=out.width), refresh=True)


class _Look:
    """The latest whole look at one host, put together from its parts."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._number = 0
        self._coming: list[dict[str, Any]] = []

    def hear(self, said: "Said") -> bool:
        """Take in a part; return whether the look is whole by it."""
        from pydantic import ValidationError

        from fleet.contracts.container_output import UsageEntry

        try:
            entry = UsageEntry.model_validate(said.data)
        except ValidationError:  # a newer host says more, a stolen one what it likes
            return False
        if entry.look != self._number:
            self._number, self._coming = entry.look, []
        self._coming += [{"host": said.host, **usage.model_dump(mode="json")} for usage in entry.usage]
        if entry.last:
            self.rows = self._coming
        return entry.last


def _sorted(rows: Sequence[Record]) -> list[Record]:
    return sorted(rows, key=lambda row: (row["host"], row["name"]))
