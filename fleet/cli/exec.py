"""`fleet exec`: run a program on one host or on many, and pass on what it says and how it ends."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from fleet import errors, shapes
from fleet.cli import approving, attending, invocation, lines, outcomes, render, selection, types
from fleet.cli.grammar import Command
from fleet.cli.ours import OURS, ours
from fleet.cli.push import recorded
from fleet.cli.types import DURATION, PAIR

if TYPE_CHECKING:
    from fleet.client import Batch, Fleet, Outcome


@click.command(
    "exec",
    cls=Command,
    # What follows the first word of the program belongs to it, options too.
    context_settings={"allow_interspersed_args": False},
    examples=(
        "fleet exec --host edge-7 -- uptime",
        "fleet exec -l env=prod --reason 'disk alarm' -- df -h",
        "fleet exec --host edge-7 --follow --time-limit 5m -- journalctl -n 100 -f",
    ),
)
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
@selection.options
@click.option("--cwd", metavar="PATH", help="Directory to run it in, where the policy lists it.")
@click.option("-e", "--env", "variables", type=PAIR, multiple=True, help="A variable, where the policy lists it.")
@click.option("--time-limit", type=DURATION, help="End it after this time.  [default: 60s; 5m at most by default]")
@approving.reason_option
@click.option("--wait", "mode", flag_value="wait", default=True, help="Wait for the end, then print all.  [default]")
@click.option("-f", "--follow", "mode", flag_value="follow", help="Print what it says as it comes.")
@click.option("-d", "--detach", "mode", flag_value="detach", help="Print the ids and return.")
@click.option("--timeout", type=DURATION, help="How long to wait; the program goes on.  [default: no limit]")
@selection.offline_or_queue_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    argv: tuple[str, ...],
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    cwd: str | None,
    variables: tuple[tuple[str, str], ...],
    time_limit: timedelta | None,
    reason: str,
    mode: str,
    timeout: timedelta | None,
    offline: Any,
) -> None:
    """Run a program on hosts: an argument list, never a shell.

    The fleet's policy lists what may be run, argument by argument; `fleet policy explain` says what it says. What needs
    somebody's approval waits for it. Exits with the program's code, 3 where those of several hosts differ, and 125
    where Fleet could not run it. Ctrl-C ends the program.

    Of what it writes 1 MiB is kept, beginning and end. --follow prints all of it up to there; of more, what comes too
    fast to be followed is left out, and where that is so is told.
    """
    from fleet.client import Fleet
    from fleet.contracts import shell

    if timeout and mode == "detach":
        raise click.UsageError("--timeout goes with --wait or --follow; --time-limit limits the program itself")
    arguments: dict[str, Any] = {"argv": list(argv)}
    if cwd is not None:
        arguments["cwd"] = cwd
    if variables:
        arguments["env"] = types.unique(variables, option="--env")
    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    shell.RUN.parse(arguments)
    options = {"offline": offline, "description": reason, "time_limit": time_limit}
    with ours(), Fleet(invocation.current().settings()) as fleet:
        selection.confirm(f"Run {argv[0]} on", fleet.targets(**where), all_hosts=all_hosts)
        if mode == "detach":
            batch = fleet.push(shell.RUN, **where, arguments=arguments, **options)
            ctx.exit(recorded(fleet, batch, tell=lambda: outcomes.tell_pushed(batch)))
        with attending.pushed(fleet, shell.RUN, where=where, arguments=arguments, **options) as batch:
            ended = _attend(fleet, batch, follows=mode == "follow", timeout=timeout)
        failure = attending.tell_failures(batch, ended)
        ctx.exit(OURS if failure else _code([outcome.reply for outcome in ended if outcome.reply]))


def _attend(fleet: "Fleet", batch: "Batch", *, follows: bool, timeout: timedelta | None) -> "list[Outcome]":
    """Wait, print what the programs said, and return how the runs ended."""
    ends = time.monotonic() + timeout.total_seconds() if timeout else None
    if not follows:
        ended = attending.ended(batch, timeout=_left(ends))
        _tell(ended)
        return ended
    printed = lines.Lines([result.host for result in batch.results])
    try:
        printed.follow(fleet.output(*batch.run_ids, timeout=_left(ends)))
        ended = attending.ended(batch, bar=False, timeout=_left(ends))
        for outcome in ended:
            if outcome.reply:
                printed.complete(outcome.run_id, outcome.reply)
    finally:
        printed.finish()
    return ended


def _left(ends: float | None) -> float | None:
    """Return how many seconds there are until then."""
    return None if ends is None else max(0.01, ends - time.monotonic())


def _tell(ended: "Sequence[Outcome]") -> None:
    """Print what the programs wrote: for people as they wrote it, for programs with everything else."""
    if invocation.current().format != "table":
        runs = [shapes.outcome(outcome.run_id, outcome.host, outcome) for outcome in ended]
        render.compound({"runs": runs}, parts=runs, key="id", people=_nothing)
        return
    printed = lines.Lines([outcome.host for outcome in ended])
    for outcome in ended:
        if outcome.reply:
            printed.write(outcome.host, "stdout", str(outcome.reply.get("stdout", "")))
            printed.write(outcome.host, "stderr", str(outcome.reply.get("stderr", "")))
            if outcome.reply.get("truncated"):
                render.warn(f"{outcome.host}: it wrote more than is kept; the middle is left out")
        elif isinstance(outcome.error, errors.TaskFailed) and outcome.error.kind == "time_limit":
            render.say(
                f"{outcome.host}: `fleet task logs {outcome.run_id}` prints what it wrote until its time was over"
            )


def _code(replies: Sequence[Mapping[str, Any]]) -> int:
    """Return the exit code of the programs, where it is one."""
    codes = {int(reply["exit_code"]) for reply in replies}
    return codes.pop() if len(codes) == 1 else errors.PartlyPushed.exit_code if codes else 0


def _nothing() -> None:
    """Print nothing for people here: they see what was written."""
