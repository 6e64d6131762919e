"""Pushing a contract about containers, waiting for it, and telling what came of it on each host."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import approving, invocation, outcomes, selection
from fleet.cli.push import recorded
from fleet.cli.types import DURATION

if TYPE_CHECKING:
    from fleet.contracts import AnyContract

#: Says in a few words what a reply means.
Brief = Callable[[Mapping[str, Any]], str]


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--timeout` and `--no-wait`."""
    for option in (
        click.option("--no-wait", is_flag=True, help="Print the task's id and return."),
        click.option("--timeout", type=DURATION, help="How long to wait; the task goes on.  [default: no limit]"),
    ):
        command = option(command)
    return command


def carry_out(
    contract: "AnyContract",
    arguments: Mapping[str, Any],
    *,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    timeout: timedelta | None,
    no_wait: bool,
    brief: Brief | None,
) -> int:
    """Push to the hosts, wait for the ends unless told otherwise, and return the exit code."""
    from fleet.client import Fleet

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    contract.parse(arguments)
    with Fleet(invocation.current().settings()) as fleet:
        selection.confirm(f"Push {contract.name} to", fleet.targets(**where), all_hosts=all_hosts)
        with approving.announced(fleet, contract) as waits:
            batch = fleet.push(contract, **where, arguments=dict(arguments))
            if no_wait:
                return recorded(fleet, batch, tell=lambda: outcomes.tell_pushed(batch))
            waits.start(batch.run_ids)
            return outcomes.tell_ended(batch, timeout=timeout, brief=brief)


def state(reply: Mapping[str, Any]) -> str:
    """Say how a container is."""
    found = reply.get("container") or {}
    parts = (found.get("name"), (found.get("docker_id") or "")[:12], found.get("status") or found.get("state"))
    return "  ".join(str(part) for part in parts if part)
