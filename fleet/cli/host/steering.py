"""`fleet host pause | resume | drain`: whether hosts take new work."""

import time
from datetime import timedelta

import click

from fleet.cli import invocation, progress, render, types
from fleet.cli.grammar import Command
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, HOST_ID, SELECTOR


@click.command("pause", cls=Command, examples=("fleet host pause edge-7", "fleet host pause -l env=lab"))
@click.argument("host_ids", type=HOST_ID, nargs=-1, metavar="HOST...")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="The hosts with all these labels.")
def pause(*, host_ids: tuple[str, ...], selectors: tuple[dict[str, str], ...]) -> None:
    """Have hosts take no new work; their queues wait, and what runs goes on."""
    _set_availability("paused", host_ids, selectors)


@click.command("resume", cls=Command, examples=("fleet host resume edge-7",))
@click.argument("host_ids", type=HOST_ID, nargs=-1, metavar="HOST...")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="The hosts with all these labels.")
def resume(*, host_ids: tuple[str, ...], selectors: tuple[dict[str, str], ...]) -> None:
    """Have hosts take work again."""
    _set_availability("active", host_ids, selectors)


@click.command(
    "drain", cls=Command, examples=("fleet host drain edge-7 --wait", "fleet host drain -l rack=4 --deadline 10m")
)
@click.argument("host_ids", type=HOST_ID, nargs=-1, metavar="HOST...")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="The hosts with all these labels.")
@click.option("--deadline", type=DURATION, help="What still runs then is cancelled.  [default: it may finish]")
@click.option("--wait", "waits", is_flag=True, help="Wait until nothing runs there any more.")
@click.option("--timeout", type=DURATION, help="How long to wait.  [default: no limit]")
def drain(
    *,
    host_ids: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    deadline: timedelta | None,
    waits: bool,
    timeout: timedelta | None,
) -> None:
    """Have hosts take no new work, because they are about to be switched off, and let what runs finish."""
    if timeout and not waits:
        raise click.UsageError("--timeout goes with --wait")
    hosts = _set_availability("draining", host_ids, selectors, deadline=deadline)
    if waits:
        _await_idle(hosts, timeout=timeout)


def _set_availability(
    wanted: str,
    host_ids: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    *,
    deadline: timedelta | None = None,
) -> list[str]:
    from fleet import availability, inventory
    from fleet.contracts.hosts import Availability, is_unlisted

    if bool(host_ids) == bool(selectors):
        raise click.UsageError("name hosts, or labels with -l: one of the two")
    settings = invocation.current().settings()
    with invocation.control_planes(settings) as opened:
        chosen = list(host_ids)
        if selectors:
            with opened() as control:
                chosen = [row.id for row in inventory.hosts(control.session, selector=types.merge(selectors))]
        availability.set(opened, chosen, Availability(wanted), by=settings.resolved_principal, deadline=deadline)
        with opened() as control:
            unseen = [host_id for host_id in chosen if is_unlisted(inventory.host(control.session, host_id).facts)]
    if unseen:
        render.say(f"unlisted, so nobody sees when they obey and are idle: {', '.join(unseen)}")
    records = [{"id": host_id, "availability": wanted} for host_id in chosen]
    columns = (
        Column(heading="HOST", value=lambda host: host["id"]),
        Column(heading="AVAILABILITY", value=lambda host: host["availability"], state=True),
    )
    render.listing(records, columns=columns, key="id", empty="no host matches")
    return chosen


def _await_idle(hosts: list[str], *, timeout: timedelta | None) -> None:
    """Wait until these hosts, as their heartbeats say, obey and have nothing in hand."""
    from fleet import errors, presence

    ends = None if timeout is None else time.monotonic() + timeout.total_seconds()
    with invocation.broker(invocation.current().settings()) as client, progress.bar("draining") as advance:
        while True:
            beats = presence.read(client, hosts)
            busy = {
                host: beat.in_hand
                for host, beat in beats.items()
                if beat is not None and (beat.in_hand or beat.availability == "active")
            }
            if not busy:
                return
            if ends is not None and time.monotonic() > ends:
                listed = ", ".join(f"{host} ({count})" for host, count in busy.items())
                raise errors.TimedOut(f"tasks still run on {listed}", remedy="`fleet task list --state running`")
            advance(f"{sum(busy.values())} tasks on {len(busy)} hosts")
            time.sleep(0.5)  # heartbeats come every ten seconds, and at once when a host obeys
