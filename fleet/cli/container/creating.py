"""`fleet container create`: containers by the flags of `docker run`, by a file, or by both."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from fleet import errors, shapes
from fleet.cli import invocation, outcomes, render, selection, tables
from fleet.cli.container import flags, pushing
from fleet.cli.grammar import Command

_PULL = click.option(
    "--pull",
    type=click.Choice(["missing", "always", "never"]),
    default="missing",
    show_default=True,
    help="When the host pulls the image.",
)
_REPLACE = click.option("--replace", is_flag=True, help="Take the place of the container that has its name.")
_DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Say what each host's policy says, and what its Engine would be asked for."
)
#: After the image everything belongs to the container, as with `docker run`.
SETTINGS = {"allow_interspersed_args": False}


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all that says what container is to be made, and how; most of it comes as `given`, for `wanted`."""
    for add in (
        click.argument("command", nargs=-1, type=click.UNPROCESSED),
        click.argument("image", required=False),
        _DRY_RUN,
        _REPLACE,
        _PULL,
        flags.options,
    ):
        command = add(command)
    return command


def wanted(
    image: str | None, command: tuple[str, ...], given: Mapping[str, Any], *, start: bool, pull: str, replace: bool
) -> dict[str, Any]:
    """Return the arguments of the contract, checked; raises `click.UsageError`, `errors.InvalidArguments`."""
    from fleet.contracts import containers

    found = {"spec": flags.spec(image, command, given), "start": start, "pull": pull, "replace": replace}
    containers.CREATE.parse(found)
    return found


@click.command(
    "create",
    cls=Command,
    context_settings=SETTINGS,
    examples=(
        "fleet container create --host edge-7 --name web -p 8080:80 -e LANG=C nginx:1.27",
        "fleet container create -l env=lab --start -f web.yaml",
        "fleet container create --host edge-7 --secret db-password --dry-run shop/api:3",
    ),
)
@selection.options_beside_labels
@pushing.options
@options
@click.option("--start", is_flag=True, help="Start it, too.")
@click.pass_context
def create(
    ctx: click.Context,
    /,
    *,
    image: str | None,
    command: tuple[str, ...],
    pull: str,
    replace: bool,
    dry_run: bool,
    start: bool,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    timeout: Any,
    no_wait: bool,
    **given: Any,
) -> None:
    """Make a container on one host or on many, as `docker create` does.

    What a host's own policy does not grant is refused there. Of the environment of this machine nothing is passed on.
    """
    from fleet.contracts import containers

    where: dict[str, Any] = {"hosts": hosts, "selectors": selectors, "all_hosts": all_hosts}
    arguments = wanted(image, command, given, start=start, pull=pull, replace=replace)
    if dry_run:
        ctx.exit(tell_checked(arguments["spec"], **where))
    ctx.exit(pushing.carry_out(containers.CREATE, arguments, brief=made, timeout=timeout, no_wait=no_wait, **where))


def made(reply: Mapping[str, Any]) -> str:
    """Say what came of a container that was to be made."""
    warnings = [f"warning: {each}" for each in reply.get("warnings") or ()]
    return "; ".join([pushing.state(reply), *warnings])


def tell_checked(
    spec: Mapping[str, Any],
    *,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
) -> int:
    """Have each host say what its policy says of a spec, print that, and return the exit code; nothing is made."""
    from fleet.client import Fleet
    from fleet.contracts import containers

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    # Not even the names of secrets leave for a host that is to judge only: they make no difference to its policy.
    judged = {name: value for name, value in spec.items() if name != "secrets"}
    with Fleet(invocation.current().settings()) as fleet:
        batch = fleet.push(containers.CHECK, **where, arguments={"spec": judged})
        ended = list(batch.wait())
    runs = [shapes.outcome(outcome.run_id, outcome.host, outcome) for outcome in ended]
    records = [_checked(run) for run in runs]
    render.compound(
        {"hosts": records, "spec": spec},
        parts=records,
        key="host",
        people=lambda: _tell_people(records, secrets=spec.get("secrets") or ()),
    )
    render.say("nothing was made (--dry-run)")
    if any(run["error"] for run in runs):
        return outcomes.exit_code(runs)
    return 0 if all(record["allowed"] for record in records) else errors.Refused.exit_code


def _checked(run: Mapping[str, Any]) -> dict[str, Any]:
    reply = run["reply"] or {}
    return {
        "host": run["host"],
        "allowed": reply.get("allowed"),
        "denials": reply.get("denials") or [],
        "request": reply.get("request"),
        "error": run["error"],
    }


def _tell_people(records: list[dict[str, Any]], *, secrets: Sequence[Mapping[str, str]]) -> None:
    for record in records:
        if record["error"]:
            says = record["error"]["message"]
        else:
            says = "lets it be made" if record["allowed"] else "refuses it"
        rows: list[tuple[str, Any]] = [("Host", record["host"]), ("Policy", says)]
        for denial in record["denials"]:
            grant = f" (the policy's line: {denial['grant']})" if denial["grant"] else ""
            rows.append((denial["field"], f"{denial['reason']}{grant}"))
        tables.show_detail(rows)
    requests = [record["request"] for record in records if record["request"]]
    if requests:
        tables.show_detail([("The Engine would be asked for", requests[0]), *_delivered(secrets)])


def _delivered(secrets: Sequence[Mapping[str, str]]) -> list[tuple[str, Any]]:
    """Return a row for each secret that the container would find."""
    from fleet.contracts.container_parts import SECRETS_TARGET

    return [("Secret", f"{each['name']}, as {SECRETS_TARGET}/{each.get('file') or each['name']}") for each in secrets]
