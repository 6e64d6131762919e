"""Targets: the options by which a command names its hosts, and the question before a push to all of them."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import invocation, types
from fleet.cli.types import HOST_ID, SELECTOR

if TYPE_CHECKING:
    from fleet.client import Target


def options(*selector: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what adds `--host`, `-l` and `--all`, which come as `hosts`, `selectors` and `all_hosts`.

    `selector` are other spellings of `-l`, where the command has no other use for them.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option("--all", "all_hosts", is_flag=True, help="On every host."),
            click.option(
                "-l", *selector, "selectors", type=SELECTOR, multiple=True, help="On the hosts with all these labels."
            ),
            click.option("--host", "hosts", type=HOST_ID, multiple=True, help="On this host; may be repeated."),
        ):
            command = option(command)
        return command

    return add


def where(hosts: tuple[str, ...], selectors: tuple[dict[str, str], ...], *, all_hosts: bool) -> dict[str, Any]:
    """Return the same as arguments of `Fleet.push` and `Fleet.targets`; one of the three has to be there."""
    if bool(hosts) + bool(selectors) + all_hosts > 1:
        raise click.UsageError("--host, -l and --all: use one of the three")
    if hosts:
        return {"on": hosts}
    if selectors:
        return {"selector": types.merge(selectors)}
    if all_hosts:
        return {"all_hosts": True}
    raise click.UsageError("no host is selected; name one with --host or -l KEY=VALUE, or use --all to mean every host")


def confirm(question: str, targets: "list[Target]", *, all_hosts: bool) -> None:
    """Ask before something is done on every host; who is not at a terminal has made up their mind."""
    if not all_hosts or invocation.current().yes or not sys.stdin.isatty():
        return
    from fleet import errors

    if not click.confirm(f"{question} every host ({len(targets)})?", err=True):
        raise errors.Refused("nothing was pushed")
