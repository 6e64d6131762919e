"""`fleet audit`: what was recorded."""

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from fleet import shapes
from fleet.cli import invocation, recorded, render, steps, tables, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, HOST_ID

if TYPE_CHECKING:
    from fleet.client import Watch
    from fleet.settings import Settings

COLUMNS = (
    Column(heading="NO", value=lambda event: event["id"], right=True, from_width=100),
    Column(heading="AGE", value=lambda event: when.age(steps.moment(event)), right=True),
    Column(heading="EVENT", value=lambda event: event["event"]),
    Column(heading="HOST", value=lambda event: event["host"], shrinks=True),
    Column(
        heading="BY", value=lambda event: "host" if event["actor"] == event["host"] else event["actor"], shrinks=True
    ),
    Column(heading="TASK", value=lambda event: tail(event["run"]), to_width=130),
    Column(heading="TASK ID", value=lambda event: event["run"], from_width=130),
    Column(heading="WHAT", value=lambda event: steps.brief(event["data"]), shrinks=True),
)
#: Look into the database at least this often: what is published there may have been missed.
_POLL_SECONDS = 2.0
#: Events that one query takes while catching up.
_PAGE = 500


def tail(run_id: str | None) -> str | None:
    """Return the end of a task id, which tells it apart and is enough for `fleet task`."""
    return run_id[-12:] if run_id else None


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--host", type=HOST_ID, help="Only about this host."),
        click.option("--task", "--run", "run", metavar="ID", help="Only about this task."),
        click.option("--event", metavar="NAME", help="Only this event, such as run.failed."),
        click.option("--by", "actor", metavar="ACTOR", help="Only by this actor: a host, p:NAME, or control."),
    ):
        command = option(command)
    return command


@click.group("audit", cls=Group)
def group() -> None:
    """Read the audit: who did what, on which host, when.

    Events are only ever added. They lie in the control plane's database, and so do shell sessions: every command and
    file operation that was asked of a host, with how it was judged and what came of it.
    """


@group.command(
    "list",
    examples=(
        "fleet audit list --host edge-7 --since 1h",
        "fleet audit list --event run.failed -o jsonl",
        "fleet audit list --kind shell --principal deploy-bot --since 1d",
    ),
)
@click.option(
    "--kind",
    type=click.Choice(["events", "shell"]),
    default="events",
    show_default=True,
    help="Events, or shell sessions: commands and file operations.",
)
@_filters
@click.option("--principal", type=HOST_ID, metavar="NAME", help="Only sessions of this principal; with --kind shell.")
@click.option("--since", type=DURATION, help="Only what was recorded within this time.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest N.")
def list_(*, kind: str, principal: str | None, since: timedelta | None, limit: int, **filters: Any) -> None:
    """List audit events, or shell sessions, the newest last."""
    from fleet import audit, clock

    moment = clock.now() - since if since else None
    if kind == "shell":
        _list_sessions(principal=principal, since=moment, limit=limit, **filters)
        return
    if principal:
        raise click.UsageError("--principal goes with --kind shell; of events it is --by p:NAME")
    with invocation.database(invocation.current().settings()) as session:
        rows = audit.events(session, since=moment, limit=limit, **filters)
    render.listing([audit.to_wire(row) for row in rows], columns=COLUMNS, key="id", empty="no event matches")


def _list_sessions(*, event: str | None, actor: str | None, **filters: Any) -> None:
    from fleet import sessions

    if event or actor:
        raise click.UsageError("--event and --by are about events; of --kind shell there is --principal")
    with invocation.database(invocation.current().settings()) as session:
        records = [shapes.shell_session(row) for row in sessions.listing(session, **filters)]
    render.listing(records, columns=recorded.COLUMNS, key="id", empty="no session matches")


@group.command("session", examples=("fleet audit session 5f0d1c2b3a49", "fleet audit session 5f0d1c2b3a49 -o json"))
@click.argument("run_id", metavar="RUN")
def session_(run_id: str) -> None:
    """Show one command or file operation: who asked for what and why, what the policy said, and what it wrote.

    Of what it wrote the beginning and the end are kept.
    """
    from fleet import sessions
    from fleet.models import Run

    with invocation.database(invocation.current().settings()) as session:
        row = sessions.named(session, run_id)
        run = session.get(Run, row.run_id)
        record = {**shapes.shell_session(row), "description": run.description if run else ""}

    def people() -> None:
        tables.show_detail(recorded.rows(record))
        recorded.tell_output(record)

    render.compound(record, parts=[record], key="id", people=people)


@group.command("follow", examples=("fleet audit follow", "fleet audit follow --host edge-7 -o jsonl"))
@_filters
@click.option("-n", "--limit", type=click.IntRange(0, 1000), default=0, help="Begin with the newest N.  [default: 0]")
def follow(*, limit: int, **filters: Any) -> None:
    """Print audit events as they are recorded, until Ctrl-C.

    The database is what is read, so nothing is missed; the broker only says when to look.
    """
    from fleet import audit, db

    settings = invocation.current().settings()
    engine = db.open_engine(settings.resolved_database_url, create=False)
    with ExitStack() as stack:
        bell = _Bell(settings, stack)
        bell.open()
        with db.session(engine, write=False) as session:
            shown = audit.events(session, limit=limit, **filters) if limit else []
            newest = audit.events(session, limit=1)
        for row in shown:
            _print(audit.to_wire(row))
        last = newest[0].id or 0 if newest else 0
        while True:
            with db.session(engine, write=False) as session:
                page = audit.events(session, after_id=last, limit=_PAGE, **filters)
            for row in page:
                _print(audit.to_wire(row))
                last = row.id or last
            if len(page) < _PAGE:
                bell.wait()


class _Bell:
    """Waits until the control plane has recorded something; for a while only, so that no event depends on it."""

    def __init__(self, settings: "Settings", stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._watch: Watch | None = None
        self._warned = False

    def open(self) -> None:
        """Listen to the broker; without one, say so once, and let `wait` try again."""
        from fleet import errors
        from fleet.client import Fleet

        try:
            fleet = self._stack.enter_context(Fleet(self._settings))
            self._watch = self._stack.enter_context(fleet.watch())
            self._warned = False
        except (errors.BrokerUnavailable, errors.SettingsInvalid) as exc:
            self._close(exc)

    def wait(self) -> None:
        from fleet import errors
        from fleet.broker.connection import translated

        if self._watch is None:
            threading.Event().wait(_POLL_SECONDS)
            self.open()
            return
        try:
            with translated(self._settings.require_broker()):
                next(self._watch.events(timeout=_POLL_SECONDS), None)
        except errors.BrokerUnavailable as exc:
            self._close(exc)

    def _close(self, exc: Exception) -> None:
        self._watch = None
        self._stack.close()
        if not self._warned:
            render.warn(f"looking every {_POLL_SECONDS:g} s only: {exc}")
        self._warned = True


def _print(event: Mapping[str, Any]) -> None:
    words = steps.line(event, day=True)
    if event["run"]:
        words += f"  {event['run']}"
    render.item(event, line=tables.styled(words), key="id")
