"""`fleet approval`: runs that wait for somebody else's word."""

import shlex
from typing import TYPE_CHECKING, Any

import click

from fleet import shapes
from fleet.cli import answering, contents, invocation, render, standing, steps, tables, waiting, when
from fleet.cli import audit as audit_command
from fleet.cli.grammar import Group
from fleet.cli.tables import Column, Record
from fleet.cli.types import HOST_ID

if TYPE_CHECKING:
    from sqlmodel import Session

    from fleet.models import Approval, Run

STATES = ("pending", "approved", "denied", "expired", "cancelled", "refused")
#: Narrower terminals get the ends of ids, which these commands take as well, and what matters most.
_WIDE = 120
#: Characters of a command in a list; `fleet approval show` has all of it.
_LONGEST = 200
_PUT = "fleet.files.put"


def what(record: Record) -> str:
    """Return what is asked for: a program with its arguments, or a contract with its own; of much the beginning."""
    argv = record["arguments"].get("argv")
    if isinstance(argv, list) and argv:
        line = shlex.join(str(word) for word in argv)
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
    arguments = dict(record["arguments"])
    if record["task"] == _PUT:
        arguments["content"] = contents.size(arguments.get("content"))
    return f"{record['task'].removeprefix('fleet.')} {steps.brief(arguments)}".strip()


def _why(record: Record) -> str:
    return f"{record['rule']}; {record['description']}" if record["description"] else str(record["rule"])


_COLUMNS = (
    Column(heading="RUN", value=lambda record: audit_command.tail(record["id"]), to_width=_WIDE),
    Column(heading="RUN", value=lambda record: record["id"], from_width=_WIDE),
    Column(heading="HOST", value=lambda record: record["host"], shrinks=True),
    Column(heading="WHO", value=lambda record: record["principal"], shrinks=True, to_width=_WIDE),
    Column(
        heading="WHO",
        value=lambda record: f"{record['principal']} ({record['level']})",
        shrinks=True,
        from_width=_WIDE,
    ),
    Column(heading="WHAT", value=what, wraps=True),
    Column(heading="RISK", value=lambda record: record["risk"]),
    Column(heading="WHY", value=_why, shrinks=True, from_width=100),
    Column(heading="ASKED", value=lambda record: when.age(record["asked_at"]), right=True),
)
#: Of what waits, and of what waited.
WAITING = (*_COLUMNS, Column(heading="EXPIRES", value=lambda record: when.ago(record["approve_before"]), right=True))
ANSWERED = (
    *_COLUMNS,
    Column(heading="STATE", value=lambda record: record["state"], state=True),
    Column(heading="BY", value=lambda record: record["decided_by"], shrinks=True),
)


@click.group("approval", cls=Group)
def group() -> None:
    """List, show, approve and deny runs that wait for somebody else.

    A run waits where its principal's level, or a rule of the policy, asks for it. Its host parks it, and lets it begin
    once when another principal approves that may approve such runs.
    """


@group.command(
    "list",
    examples=("fleet approval list", "fleet approval list --host edge-7 --state all -o json"),
)
@click.option(
    "--state",
    type=click.Choice([*STATES, "all"]),
    default="pending",
    show_default=True,
    help="Only what is in this state.",
)
@click.option("--host", type=HOST_ID, help="Only on this host.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest N.")
def list_(*, state: str, host: str | None, limit: int) -> None:
    """List what waits for approval, or waited, the newest last."""
    from fleet import approvals, sessions

    with invocation.database(invocation.current().settings()) as session:
        found = approvals.listing(session, state=None if state == "all" else state, host=host, limit=limit)
        told = sessions.find(session, [row.run_id for row, _ in found])
    records = [
        shapes.approval(row, run, request=approvals.request(row, run), session=told.get(row.run_id))
        for row, run in found
    ]
    if state == "pending":
        render.listing(records, columns=WAITING, key="id", empty="nothing waits for approval")
    else:
        render.listing(records, columns=ANSWERED, key="id", empty="no approval matches")


@group.command("show", examples=("fleet approval show 5f0d1c2b3a49", "fleet approval show 5f0d1c2b3a49 -o json"))
@click.argument("run_id", metavar="RUN")
def show(run_id: str) -> None:
    """Show all that whoever approves a run should know: who asks for what exactly, on which host, and why."""
    from fleet import approvals, runs

    settings = invocation.current().settings()
    waiting.await_record(settings, run_id)
    with invocation.database(settings) as session:
        run = runs.named(session, run_id)
        record = _whole(session, approvals.get(session, run.id), run)
    render.detail(record, key="id", rows=_rows(record))
    if record["state"] == "pending" and not record["exact"]:
        render.warn(
            f"the message on record is not the one that {record['host']} has parked, so what it asks for is shown only "
            "as it was reported; deny it unless you know why"
        )


group.add_command(answering.approve)
group.add_command(answering.deny)


def _whole(session: "Session", row: "Approval", run: "Run") -> dict[str, Any]:
    from fleet import approvals, sessions
    from fleet.models import Host

    host = session.get(Host, row.host_id)
    told = sessions.find(session, [row.run_id]).get(row.run_id)
    return {
        **shapes.approval(row, run, request=approvals.request(row, run), session=told),
        "labels": host.labels if host else {},
        "record": standing.record(session, row.principal),
    }


def _rows(record: Record) -> list[tuple[str, Any]]:
    arguments = dict(record["arguments"])
    argv = arguments.pop("argv", None)
    command: list[tuple[str, Any]] = [("Command", argv)] if isinstance(argv, list) else []
    if command and "cwd" in arguments:
        command.append(("Directory", arguments.pop("cwd") or "as the policy says"))
    if command and record["run_as"]:
        command[1:] = [("Program", record["run_as"]["program"]), ("Directory", record["run_as"]["cwd"])]
    if command and "env" in arguments:
        command.append(("Variables", arguments.pop("env") or "none"))
    content = contents.rows(arguments.pop("content", "")) if record["task"] == _PUT else []
    limit = record["limit_seconds"]
    by = f", by {record['decided_by']}" if record["decided_by"] else ""
    return [
        ("Run", record["id"]),
        ("State", record["state"]),
        ("Who", f"{record['principal']} ({record['level']})"),
        *standing.rows(record["record"]),
        ("Host", record["host"]),
        ("Labels", tables.labels(record["labels"])),
        ("Contract", record["task"]),
        *command,
        *([("Arguments", arguments)] if arguments or not command else []),
        *content,
        ("Time limit", when.span(limit) if limit else "the contract's"),
        *standing.repeats(record["max_retries"]),
        ("Risk", record["risk"]),
        ("Description", record["description"]),
        ("Rule", record["rule"]),
        ("Digest", record["digest"]),
        ("Asked", when.both(record["asked_at"])),
        ("Approve before", when.both(record["approve_before"])),
        ("Decided", f"{when.both(record['decided_at'])}{by}" if record["decided_at"] else None),
        ("Run before", when.both(record["run_before"])),
        ("Reason", record["reason"]),
        ("Task is", record["run_state"]),
    ]
