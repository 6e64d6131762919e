"""`fleet ps`: the containers of the hosts, as their workers say now."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from fleet import shapes
from fleet.cli import invocation, render, types, when
from fleet.cli.grammar import Command
from fleet.cli.tables import Column
from fleet.cli.types import HOST_ID, SELECTOR

if TYPE_CHECKING:
    from fleet.client import Fleet


def _status(row: Mapping[str, Any]) -> str:
    """Say how long a container runs, as of now: the Engine's own sentence is as old as the last full sync."""
    if row["state"] != "running" or not row.get("started"):
        return str(row["status"])
    health = f" ({row['health']})" if row["health"] else ""
    return f"up {when.age(row['started'])}{health}"


_COLUMNS = (
    Column(heading="HOST", value=lambda row: row["host"]),
    Column(heading="CONTAINER ID", value=lambda row: row["docker_id"][:12], from_width=90),
    Column(heading="NAME", value=lambda row: row["name"], shrinks=True),
    Column(heading="IMAGE", value=lambda row: row["image"], shrinks=True),
    Column(heading="STATE", value=lambda row: row["state"], state=True),
    Column(heading="STATUS", value=_status, shrinks=True),
    Column(heading="PORTS", value=lambda row: _ports(row["ports"]), shrinks=True, from_width=100),
)
#: The row of a host of which nothing is known; a missing inventory is not an empty one.
_UNKNOWN = {
    "docker_id": "unknown",
    "name": "unknown",
    "image": "unknown",
    "state": "unknown",
    "status": "",
    "ports": [],
}


@click.command(
    "ps",
    cls=Command,
    examples=("fleet ps", "fleet ps --host edge-7 --running", "fleet ps --managed", "fleet ps -l env=prod -o json"),
)
@click.option("--host", "hosts", type=HOST_ID, multiple=True, help="Only this host; may be repeated.")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="Only hosts with this label.")
@click.option("--running", is_flag=True, help="Only containers that run.")
@click.option("--managed", is_flag=True, help="Only containers that Fleet made.")
def command(*, hosts: tuple[str, ...], selectors: tuple[dict[str, str], ...], running: bool, managed: bool) -> None:
    """List the containers of the hosts, as their workers say now.

    A host whose worker is not here is listed as unknown: what it runs, nobody can say.
    """
    from fleet.client import Fleet

    if hosts and selectors:
        raise click.UsageError("--host and -l: name hosts, or labels, but not both")
    with Fleet(invocation.current().settings()) as fleet:
        chosen = _chosen(fleet, hosts, types.merge(selectors))
        found = _inventories(fleet, chosen)
    records = [
        record
        for host in chosen
        for record in found[host] or ()
        if (not running or record["state"] == "running") and (not managed or record["managed"])
    ]
    unknown = [host for host in chosen if found[host] is None]
    rows = sorted([*records, *({"host": host, **_UNKNOWN} for host in unknown)], key=lambda row: row["host"])
    whole = {"containers": records, "unknown": unknown}
    render.compound(
        whole,
        parts=records,
        key="docker_id",
        people=lambda: render.listing(rows, columns=_COLUMNS, key="docker_id", empty="no containers"),
    )
    if unknown:
        render.say(f"unknown: {', '.join(unknown)} (no worker there has told its containers lately)")


def _chosen(fleet: "Fleet", hosts: tuple[str, ...], selector: Mapping[str, str] | None) -> list[str]:
    from fleet import errors

    if hosts:
        try:
            targets = fleet.targets(on=hosts)
        except errors.HostNotEnrolled as exc:  # it speaks of a push
            raise errors.NotFound(f"no host named {exc.host!r} is enrolled", remedy=exc.remedy) from exc
    elif selector:
        targets = fleet.targets(selector=selector)
    else:
        targets = fleet.targets(all_hosts=True)
    return [target.host for target in targets]


def _inventories(fleet: "Fleet", hosts: list[str]) -> dict[str, list[dict[str, Any]] | None]:
    """Read each host's containers from the registry; None where it holds nothing that can be read."""
    import json

    from pydantic import ValidationError

    from fleet import names
    from fleet.broker.connection import translated
    from fleet.contracts.containers import Container

    with translated(fleet.dispatcher.broker):
        values = fleet.dispatcher.redis.mget([names.inventory(host) for host in hosts])
    found: dict[str, list[dict[str, Any]] | None] = {}
    for host, value in zip(hosts, values, strict=True):
        try:
            listed = json.loads(value)["containers"] if value else None
            found[host] = (
                None if listed is None else [shapes.container(host, Container.model_validate(c)) for c in listed]
            )
        except (ValueError, KeyError, TypeError, ValidationError):
            found[host] = None
    return found


def _ports(ports: list[dict[str, Any]]) -> str:
    shown = []
    for port in ports:
        inside = f"{port['container_port']}/{port['protocol']}"
        shown.append(f"{port['host_port']}->{inside}" if port["host_port"] else inside)
    return ", ".join(dict.fromkeys(shown))
