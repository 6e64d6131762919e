"""`fleet task`: pushed tasks, by their ids."""

import sys
from datetime import timedelta
from typing import Any

import click

from fleet import shapes
from fleet.cli import audit as audit_command
from fleet.cli import invocation, lines, outcomes, push, render, waiting, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column, Record
from fleet.cli.types import DURATION, HOST_ID

#: A task id has 38 characters and the host's; narrower terminals get its end, which these commands take as well.
_WIDE = 120


def _took(run: Record) -> str | None:
    if run["started_at"] is None or run["finished_at"] is None:
        return None
    return when.span(run["finished_at"] - run["started_at"])


_COLUMNS = (
    Column(heading="HOST", value=lambda run: run["host"], to_width=_WIDE, shrinks=True),
    Column(heading="ID", value=lambda run: audit_command.tail(run["id"]), to_width=_WIDE),
    Column(heading="TASK ID", value=lambda run: run["id"], from_width=_WIDE),
    Column(heading="TASK", value=lambda run: run["task"], shrinks=True),
    Column(heading="STATE", value=lambda run: run["state"], state=True),
    Column(heading="AGE", value=lambda run: when.age(run["submitted_at"]), right=True),
    Column(heading="TOOK", value=_took, right=True),
    Column(heading="BY", value=lambda run: run["submitted_by"], shrinks=True, from_width=100),
    Column(heading="DESCRIPTION", value=lambda run: run["description"], shrinks=True, from_width=100),
)
STATES = (
    "queued",
    "awaiting_approval",
    "accepted",
    "running",
    "recovering",
    "succeeded",
    "failed",
    "cancelled",
    "rejected",
    "expired",
    "unknown",
)


@click.group("task", cls=Group)
def group() -> None:
    """List, show, follow, wait for, cancel and retry tasks.

    A task is named by its id, HOST:UUID, or by enough of the id's end to be the only one.
    """


@group.command(
    "list",
    examples=(
        "fleet task list",
        "fleet task list --host edge-7 --state failed",
        "fleet task list -o id --state queued",
    ),
)
@click.option("--host", type=HOST_ID, help="Only on this host.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.option("--task", metavar="NAME", help="Only of this contract, such as fleet.host.ping.")
@click.option("--batch", metavar="ID", help="Only of this push.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest N.")
def list_(**filters: Any) -> None:
    """List tasks, the newest first."""
    from fleet import runs

    with invocation.database(invocation.current().settings()) as session:
        records = [shapes.run(row) for row in runs.listing(session, **filters)]
    given = any(value for name, value in filters.items() if name != "limit")
    render.listing(
        records,
        columns=_COLUMNS,
        key="id",
        empty="no task matches" if given else "no tasks; see `fleet push-task --help`",
    )


@group.command("show", examples=("fleet task show 5f0d1c2b3a49", "fleet task show 5f0d1c2b3a49 -o json"))
@click.argument("task_id")
def show(task_id: str) -> None:
    """Show all that is known of one task: who asked, what for, and what came of it."""
    from fleet import runs

    settings = invocation.current().settings()
    waiting.await_record(settings, task_id)
    with invocation.database(settings) as session:
        row = runs.named(session, task_id)
        tries = [shapes.attempt(attempt) for attempt in runs.attempts(session, row.id)]
    record = {**shapes.run(row), "attempts": tries}
    render.detail(record, key="id", rows=_rows(record))


@group.command("events", examples=("fleet task events 5f0d1c2b3a49", "fleet task events 5f0d1c2b3a49 -o jsonl"))
@click.argument("task_id")
def events(task_id: str) -> None:
    """List what was recorded of one task, step by step."""
    from fleet import audit, runs

    settings = invocation.current().settings()
    waiting.await_record(settings, task_id)
    with invocation.database(settings) as session:
        run = runs.named(session, task_id)
        rows = audit.events(session, run=run.id, after_id=0, limit=100_000)
    columns = [c for c in audit_command.COLUMNS if c.heading not in {"HOST", "TASK", "TASK ID"}]
    render.listing([audit.to_wire(row) for row in rows], columns=columns, key="id", empty="nothing was recorded yet")


@group.command("logs", examples=("fleet task logs 5f0d1c2b3a49", "fleet task logs -f 5f0d1c2b3a49 -o jsonl"))
@click.argument("task_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended, or Ctrl-C; the task goes on.")
def logs(*, task_id: str, follow: bool) -> None:
    """Print what a task says, or said: the newest of it, for a minute after its end.

    Containers' logs and statistics and the pull of an image say something; most tasks only have a reply.
    """
    from fleet import names

    settings = invocation.current().settings()
    with waiting.earlier(settings, [task_id]) as earlier:
        [run_id] = earlier.run_ids
        waiting.refuse_unknown(settings, [run_id])
        goes_on = follow and not waiting.has_ended(settings, run_id)
        lines.tell(earlier.fleet.output(run_id, follow=goes_on), [names.host_of_run(run_id)])


@group.command("wait", examples=("fleet task wait 5f0d1c2b3a49 --timeout 5m", "fleet task wait edge-7:$UUID -o json"))
@click.argument("task_ids", nargs=-1, required=True)
@click.option("--timeout", type=DURATION, help="How long to wait; the task goes on.  [default: no limit]")
@click.pass_context
def wait(ctx: click.Context, *, task_ids: tuple[str, ...], timeout: timedelta | None) -> None:
    """Wait until tasks have ended, and print what came of them; the exit code tells, too."""
    with waiting.earlier(invocation.current().settings(), task_ids) as pushed:
        ctx.exit(outcomes.tell_ended(pushed, timeout=timeout))


@group.command(
    "cancel",
    examples=("fleet task cancel 5f0d1c2b3a49", "fleet task cancel 5f0d1c2b3a49 --reason 'wrong container' --wait"),
)
@click.argument("task_ids", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end, and print what came of it.")
@click.option("--timeout", type=DURATION, help="How long to wait.  [default: no limit]")
@click.pass_context
def cancel(
    ctx: click.Context, *, task_ids: tuple[str, ...], reason: str, waits: bool, timeout: timedelta | None
) -> None:
    """End tasks that wait or run.

    What waits for its host never begins, also while the host is away. What runs is asked to end, and killed three
    seconds later; a call of the Docker Engine that is under way is not called back. Tasks that have ended stay so.
    """
    from fleet.client import Fleet

    if timeout and not waits:
        raise click.UsageError("--timeout goes with --wait")
    settings = invocation.current().settings()
    with waiting.earlier(settings, task_ids) as earlier, Fleet(settings) as fleet:
        waiting.refuse_unknown(settings, earlier.run_ids)
        for run_id in earlier.run_ids:
            fleet.cancel(run_id, reason=reason)
        if waits:
            # Having been cancelled is what was asked for.
            ctx.exit(outcomes.tell_ended(earlier, timeout=timeout, wanted="cancelled"))
        render.say(f"asked to end: {', '.join(earlier.run_ids)}; `fleet task wait` tells what came of it")


@group.command("retry", examples=("fleet task retry 5f0d1c2b3a49", "fleet task retry 5f0d1c2b3a49 --wait -y"))
@click.argument("task_id")
@click.option(
    "--offline",
    type=click.Choice(["fail", "queue"]),
    default="fail",
    show_default=True,
    help="About a host that is away.",
)
@click.option("--wait", "waits", is_flag=True, help="Wait for the end, and print what came of it.")
@click.option("--timeout", type=DURATION, help="How long to wait; the task goes on.  [default: no limit]")
@click.pass_context
def retry(ctx: click.Context, *, task_id: str, offline: Any, waits: bool, timeout: timedelta | None) -> None:
    """Push a task that has ended once more, as a new one with the same arguments.

    One whose outcome is unknown may have had its effect; that is asked about first, unless -y is given.
    """
    from fleet import errors, runs
    from fleet.client import Fleet

    settings = invocation.current().settings()
    waiting.await_record(settings, task_id)
    with invocation.database(settings) as session:
        row = runs.named(session, task_id)
        run = shapes.run(row)
        ended = runs.is_final(row.state)
    if not ended:
        raise errors.UsageError(
            f"task {run['id']} is {run['state']}", remedy="wait for its end, or end it with `fleet task cancel`"
        )
    if run["state"] == "unknown" and not invocation.current().yes:
        question = f"{run['task']} on {run['host']} may have had its effect already. Run it again?"
        if not sys.stdin.isatty() or not click.confirm(question, err=True):
            raise errors.Refused("nothing was pushed", remedy="look at the host first; -y runs it again all the same")
    with Fleet(settings) as fleet:
        batch = fleet.push(
            run["task"],
            on=run["host"],
            arguments=run["arguments"],
            offline=offline,
            time_limit=run["limit_seconds"],
            max_retries=run["max_retries"],
            retry_of=run["id"],
            description=run["description"],
            metadata=run["metadata"],
        )
        if waits:
            ctx.exit(outcomes.tell_ended(batch, timeout=timeout))
        ctx.exit(push.recorded(fleet, batch, tell=lambda: outcomes.tell_pushed(batch)))


def _attempt(attempt: Record) -> str:
    took = f" after {when.span(attempt['duration_seconds'])}" if attempt["duration_seconds"] is not None else ""
    return f"{attempt['number']} {attempt['state']}{took}"


def _asked(run: Record) -> str | None:
    if run["cancel_requested_at"] is None:
        return None
    return f"by {run['cancel_requested_by']}, {when.both(run['cancel_requested_at'])}"


def _rows(run: Record) -> list[tuple[str, Any]]:
    tries = run["attempts"]
    error = run["error"] or {}
    rows = [
        ("Task", run["id"]),
        ("Contract", run["task"] or "not known yet"),
        ("Host", run["host"]),
        ("State", run["state"]),
        ("Description", run["description"]),
        ("Arguments", run["arguments"]),
        ("Metadata", run["metadata"]),
        ("Submitted by", run["submitted_by"]),
        ("Submitted", when.both(run["submitted_at"])),
        ("Assigned", when.both(run["assigned_at"])),
        ("Started", when.both(run["started_at"])),
        ("Finished", when.both(run["finished_at"])),
        ("Took", _took(run)),
        ("Not before", when.both(run["not_before"])),
        ("Not after", when.both(run["not_after"])),
        ("Time limit", when.span(run["limit_seconds"]) if run["limit_seconds"] else None),
        ("Attempts", ", ".join(_attempt(each) for each in tries) if len(tries) > 1 else len(tries)),
        ("Retries", f"up to {run['max_retries']}" if run["max_retries"] else None),
        ("Repeats", run["retry_of"]),
        ("Cancel asked", _asked(run)),
        ("Push", run["batch"]),
        ("Progress", run["progress"]),
    ]
    result = ("Error", f"{error.get('kind')}: {error.get('message')}") if error else ("Reply", run["reply"])
    return [*rows, result]
