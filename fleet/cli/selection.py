"""Selection: which hosts a command is about, named one by one, by labels, or all."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleet.cli import invocation, types
from fleet.cli.types import HOST_ID, SELECTOR

if TYPE_CHECKING:
    from fleet.client import Target

F = TypeVar("F", bound=Callable[..., Any])


def options(command: F) -> F:
    """Give a command --host, -l (--label) and --all, as `hosts`, `selectors` and `all_hosts`."""
    return _options(command, "-l", "--label")


def options_beside_labels(command: F) -> F:
    """Do the same where --label is something else's."""
    return _options(command, "-l")


def _options(command: F, *selector: str) -> F:
    for option in (
        click.option("--all", "all_hosts", is_flag=True, help="On every host."),
        click.option(*selector, "selectors", type=SELECTOR, multiple=True, help="On the hosts with all these labels."),
        click.option("--host", "hosts", type=HOST_ID, multiple=True, help="On this host; may be repeated."),
    ):
        command = option(command)
    return command


#: What a command that looks does about hosts that are away.
offline_option = click.option(
    "--offline",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="About hosts that are away, paused or draining: ask none at all, or leave them out.",
)

#: What one that may also wait for them does.
offline_or_queue_option = click.option(
    "--offline",
    type=click.Choice(["fail", "skip", "queue"]),
    default="fail",
    show_default=True,
    help="About hosts that are away, paused or draining: push nothing at all, leave them out, or queue for them.",
)


def where(hosts: tuple[str, ...], selectors: tuple[dict[str, str], ...], *, all_hosts: bool) -> dict[str, Any]:
    """Return the words by which `Fleet.targets` and `Fleet.push` name these hosts; an empty selection is refused."""
    if bool(hosts) + bool(selectors) + all_hosts > 1:
        raise click.UsageError("--host, -l and --all: use one of the three")
    if hosts:
        return {"on": hosts}
    if selectors:
        return {"selector": types.merge(selectors)}
    if all_hosts:
        return {"all_hosts": True}
    raise click.UsageError("no host is selected; name one with --host or -l KEY=VALUE, or use --all to mean every host")


def confirm(what: str, targets: "Sequence[Target]", *, all_hosts: bool) -> None:
    """Ask before something is done on every host; who is not at a terminal has made up their mind.

    Raises `errors.Refused` where the answer is no.
    """
    if not all_hosts or invocation.current().yes or not sys.stdin.isatty():
        return
    from fleet import errors

    if not click.confirm(f"{what} every host ({len(targets)})?", err=True):
        raise errors.Refused("nothing was pushed")
