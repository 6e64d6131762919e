"""`fleet push-task`: push a task to hosts, and wait for what comes of it if asked to."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import approving, invocation, outcomes, render, selection, steps, types
from fleet.cli.grammar import Command
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, MOMENT, PAIR

if TYPE_CHECKING:
    from fleet.client import Batch, Fleet, Target
    from fleet.errors import Unreachable

_PLAN = (
    Column(heading="HOST", value=lambda row: row["host"]),
    Column(heading="PRESENCE", value=lambda row: "online" if row["connected"] else "offline", state=True),
    Column(heading="AVAILABILITY", value=lambda row: row["availability"], state=True),
    Column(heading="WOULD", value=lambda row: row["would"]),
)


def _complete_task(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from fleet.contracts import registry

    return [name for name in registry.known() if name.startswith(incomplete)]


@click.command(
    "push-task",
    cls=Command,
    examples=(
        "fleet push-task fleet.host.ping --host edge-7 --wait",
        "fleet push-task fleet.containers.stop -l env=lab --arg container=web --follow",
        "fleet push-task fleet.containers.restart --host edge-7 --arg container=web --delay 10m --retries 3",
        "fleet push-task fleet.containers.list --all --json '{}' --wait -o json",
    ),
)
@click.argument("task", shell_complete=_complete_task)
@selection.options
@click.option("--arg", "pairs", type=PAIR, multiple=True, help="An argument of the task; may be repeated.")
@click.option("--json", "document", metavar="@FILE|-|JSON", help="All arguments as an object (-o json is the output).")
@selection.offline_or_queue_option
@click.option("--expires", type=DURATION, help="A host must begin within this time, or not at all.")
@click.option("--delay", type=DURATION, help="A host may begin after this time.")
@click.option("--not-before", type=MOMENT, help="A host may begin at this moment (ISO 8601; local time by default).")
@click.option("--time-limit", type=DURATION, help="End it after this time.  [default: the task's own limit]")
@click.option("--soft-time-limit", type=DURATION, help="Ask it to stop after this time; less than the other limit.")
@click.option("--retries", type=click.IntRange(0, 100), help="Try again this many times where it fails.  [default: 0]")
@click.option("--retry-backoff", type=DURATION, help="Wait this long before the first retry, then twice as long.")
@click.option("--retry-backoff-max", type=DURATION, help="Wait at most this long before a retry.")
@click.option("--description", default="", metavar="TEXT", help="What it is for, for the record.")
@click.option("--meta", type=PAIR, multiple=True, help="Metadata that goes with the task; may be repeated.")
@click.option("--wait", "mode", flag_value="wait", help="Wait for the end, and print what came of it.")
@click.option("--follow", "mode", flag_value="follow", help="The same, and tell each step on the way (stderr).")
@click.option("--detach", "mode", flag_value="detach", default=True, help="Print the ids and return.  [default]")
@click.option("--timeout", type=DURATION, help="How long to wait; the task goes on.  [default: no limit]")
@click.option("--dry-run", is_flag=True, help="Say what would happen on which host, and push nothing.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    task: str,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    pairs: tuple[tuple[str, str], ...],
    document: str | None,
    offline: Any,
    expires: timedelta | None,
    delay: timedelta | None,
    not_before: datetime | None,
    time_limit: timedelta | None,
    soft_time_limit: timedelta | None,
    retries: int | None,
    retry_backoff: timedelta | None,
    retry_backoff_max: timedelta | None,
    description: str,
    meta: tuple[tuple[str, str], ...],
    mode: str,
    timeout: timedelta | None,
    dry_run: bool,
) -> None:
    """Push a task to one host, several, or all.

    Several are named one by one, or by the labels that they all have. Without --wait it returns when the control plane
    has the task on record, so that no failure of the broker loses it; where that takes more than two seconds it warns
    and returns with 0. A host that is not connected fails the whole push before anything is sent, unless --offline says
    otherwise.
    """
    from fleet.cli import arguments
    from fleet.client import Fleet
    from fleet.contracts import registry

    if timeout and mode == "detach":
        raise click.UsageError("--timeout goes with --wait or --follow; --time-limit limits the task itself")
    if delay and not_before:
        raise click.UsageError("--delay and --not-before: use one of the two")
    contract = registry.get(task)
    given = arguments.read(contract, pairs=pairs, document=document)
    metadata = types.unique(meta, option="--meta")
    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    with Fleet(invocation.current().settings()) as fleet:
        targets = fleet.targets(**where)
        if dry_run:
            ctx.exit(_tell_plan(targets, task=task, offline=offline, governed=contract.governed))
        selection.confirm(f"Push {task} to", targets, all_hosts=all_hosts)
        follow = mode == "follow" and not invocation.current().quiet
        waits = mode == "wait"
        with approving.announced(fleet, contract) if waits else steps.following(fleet, wanted=follow) as follower:
            batch = fleet.push(
                contract,
                **where,
                arguments=given,
                offline=offline,
                expires=expires,
                countdown=delay,
                eta=not_before,
                time_limit=time_limit,
                soft_time_limit=soft_time_limit,
                max_retries=retries,
                retry_backoff=retry_backoff,
                retry_backoff_max=retry_backoff_max,
                description=description,
                metadata=metadata,
            )
            if mode == "detach":
                ctx.exit(recorded(fleet, batch, tell=lambda: outcomes.tell_pushed(batch)))
            follower.start(batch.run_ids)
            code = outcomes.tell_ended(batch, timeout=timeout, bar=not follow)
            follower.stop(grace=steps.GRACE_SECONDS if follow else 0.0)
            ctx.exit(code)


def recorded(fleet: "Fleet", batch: "Batch", *, tell: Callable[[], int]) -> int:
    """Wait until the control plane has a push on record, tell of the push in any case, and return its exit code."""
    from fleet import errors

    try:
        is_recorded = fleet.recorded(batch)
    except errors.BrokerUnavailable:
        is_recorded = False
    except KeyboardInterrupt:
        tell()  # what is pushed is pushed, and its ids are known nowhere else
        raise
    code = tell()
    if not is_recorded:
        render.warn(
            "the control plane has not recorded it yet, and until it has, a broker that loses its disk loses it; "
            "`fleet health control` says whether one runs"
        )
    return code


def _tell_plan(targets: "list[Target]", *, task: str, offline: str, governed: bool) -> int:
    """Print what a push would do; return the exit code that it would have. What is governed, its host judges."""
    from fleet import errors

    obstacles = {target.host: target.obstacle(queues=offline == "queue") for target in targets}
    skipped = [host for host, found in obstacles.items() if isinstance(found, errors.HostNotConnected)]
    plan: list[Mapping[str, Any]] = [
        {
            "host": target.host,
            "task": task,
            "connected": target.connected,
            "availability": target.availability,
            "would": _would(target, obstacles[target.host], offline=offline, governed=governed),
        }
        for target in targets
    ]
    render.listing(plan, columns=_PLAN, key="host", empty="no hosts")
    render.say("nothing was pushed (--dry-run)")
    left = [found for host, found in obstacles.items() if offline != "skip" or host not in skipped]
    return 5 if any(left) or not left else 0


def _would(target: "Target", obstacle: "Unreachable | None", *, offline: str, governed: bool) -> str:
    from fleet import errors

    if obstacle is None:
        if target.obstacle() is not None:
            return "get it queued"
        return "run, or ask, as its policy says" if governed else "run"
    if offline == "skip" and isinstance(obstacle, errors.HostNotConnected):
        return "be left out"
    return f"fail the push: {obstacle.code}"
