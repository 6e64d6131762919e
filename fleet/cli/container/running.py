"""`fleet run`: make a container, start it, follow what it says and tell how it ended, as `docker run` does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from fleet import errors
from fleet.cli import approving, attending, invocation, lines, render, selection
from fleet.cli.container import creating
from fleet.cli.grammar import Command
from fleet.cli.ours import OURS, ours
from fleet.cli.tables import Column

if TYPE_CHECKING:
    from fleet.client import Fleet, Outcome
    from fleet.contracts import AnyContract

_STARTED = (
    Column(heading="HOST", value=lambda row: row["host"]),
    Column(
        heading="CONTAINER",
        value=lambda row: creating.made({"container": row["container"], "warnings": row["warnings"]}),
    ),
)


@click.command(
    "run",
    cls=Command,
    context_settings=creating.SETTINGS,
    examples=(
        "fleet run --host edge-7 --rm busybox:1.36 date",
        "fleet run -l env=prod -d --name web -p 8080:80 --restart always nginx:1.27",
        "fleet run --host edge-7 --secret db-password -f backup.yaml",
    ),
)
@selection.options_beside_labels
@creating.options
@click.option("-d", "--detach", is_flag=True, help="Return when it has started.")
@click.option("--rm", "removes", is_flag=True, help="Remove it when it has ended, with its unnamed volumes.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    image: str | None,
    command: tuple[str, ...],
    pull: str,
    replace: bool,
    dry_run: bool,
    detach: bool,
    removes: bool,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    **given: Any,
) -> None:
    """Run a container on one host or on many, and print what it says.

    Exits with the container's code, 3 where those of several hosts differ, and 125 where Fleet could not run it. Ctrl-C
    leaves the container running. What a host's own policy does not grant is refused there.
    """
    from fleet.client import Fleet
    from fleet.contracts import containers

    if detach and removes:
        raise click.UsageError("--rm: somebody has to see the container end; leave out --detach")
    arguments = creating.wanted(image, command, given, start=True, pull=pull, replace=replace)
    if dry_run:
        ctx.exit(creating.tell_checked(arguments["spec"], hosts=hosts, selectors=selectors, all_hosts=all_hosts))
    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    with ours(), Fleet(invocation.current().settings()) as fleet:
        selection.confirm("Run a container on", fleet.targets(**where), all_hosts=all_hosts)
        with approving.announced(fleet, containers.CREATE) as waits:
            batch = fleet.push(containers.CREATE, **where, arguments=arguments)
            waits.start(batch.run_ids)
            started = attending.ended(batch)
        failure = attending.tell_failures(batch, started)
        there = {outcome.host: outcome.reply["container"]["docker_id"] for outcome in started if outcome.reply}
        if detach:
            _tell_started(started)
            ctx.exit(OURS if failure else 0)
        ended: list[Outcome] = []
        with _removed_after(fleet, there, ended) if removes else nullcontext():
            try:
                _follow(fleet, there)
            except KeyboardInterrupt:
                render.say(
                    "the containers go on; `fleet container stop` stops them, `fleet container logs -f` follows them"
                )
                raise
            ended += _on_each(fleet, containers.WAIT, there, {})
        ctx.exit(OURS if failure else _code(ended))


@contextmanager
def _removed_after(fleet: "Fleet", there: Mapping[str, str], ended: "Sequence[Outcome]") -> Iterator[None]:
    """Remove the containers however the block ends, but by Ctrl-C, which leaves them running.

    One that is not known to have `ended` is not forced: it may be at work still, and is left where it is.
    """
    from fleet.contracts import containers

    def remove() -> None:
        known = {outcome.host for outcome in ended if outcome.error is None}
        removals: list[Outcome] = []
        for force, hosts in ((True, known), (False, there.keys() - known)):
            chosen = {host: docker_id for host, docker_id in there.items() if host in hosts}
            removals += _on_each(fleet, containers.REMOVE, chosen, {"force": force, "volumes": True})
        _raise_first(removals)

    try:
        yield
    except errors.FleetError:
        try:
            remove()
        except errors.FleetError as exc:  # what went wrong first is what the command ends with
            render.warn(f"not all of the containers could be removed: {exc}")
        raise
    remove()


def _follow(fleet: "Fleet", there: Mapping[str, str]) -> None:
    """Print what the containers say until they have ended; warn of those that cannot be followed."""
    from fleet.contracts.container_output import LOGS

    batches = []
    try:
        for host, docker_id in there.items():
            wish = {"container": docker_id, "follow": True, "tail": "all"}
            batches.append(fleet.push(LOGS, on=host, arguments=wish))
        lines.tell(fleet.output(*(run for batch in batches for run in batch.run_ids)), list(there))
        for outcome in (outcome for batch in batches for outcome in batch.wait()):
            if outcome.error is not None:
                render.warn(f"{outcome.host}: what the container says cannot be followed: {outcome.error}")
    except BaseException:
        for batch in batches:
            attending.cancel(fleet, batch)
        raise


def _on_each(
    fleet: "Fleet", contract: "AnyContract", there: Mapping[str, str], arguments: Mapping[str, Any]
) -> "Iterator[Outcome]":
    """Push to each host about its own container, and return how that ended."""
    batches = [
        fleet.push(contract, on=host, arguments={"container": docker_id, **arguments})
        for host, docker_id in there.items()
    ]
    for batch in batches:
        yield from batch.wait()


def _raise_first(outcomes: "Iterable[Outcome]") -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error


def _code(ended: "Sequence[Outcome]") -> int:
    """Return the exit code of the containers, where it is one."""
    _raise_first(ended)
    codes = {int((outcome.reply or {})["exit_code"]) for outcome in ended}
    return codes.pop() if len(codes) == 1 else errors.PartlyPushed.exit_code


def _tell_started(started: "Sequence[Outcome]") -> None:
    records = [
        {
            "host": outcome.host,
            "docker_id": outcome.reply["container"]["docker_id"],
            "container": outcome.reply["container"],
            "warnings": outcome.reply.get("warnings") or [],
            "run": outcome.run_id,
        }
        for outcome in started
        if outcome.reply
    ]
    render.listing(records, columns=_STARTED, key="docker_id", empty="nothing was started")
