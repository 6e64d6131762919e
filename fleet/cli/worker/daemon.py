"""`fleet worker start | stop | status`: the worker of a host as a daemon."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import invocation, render, when
from fleet.cli.grammar import Command
from fleet.cli.types import DURATION
from fleet.cli.worker import options

if TYPE_CHECKING:
    from fleet.local.daemon import Seen
    from fleet.settings import Settings

#: Of `status` where no worker runs, as `systemctl status` and init scripts say it.
NOT_RUNNING = 3


@click.command(
    "start",
    cls=Command,
    examples=(
        "fleet worker start --host-id edge-7",
        "fleet worker --host-id edge-7 start --no-shell",
        "fleet worker start --host-id edge-7 --token-file token",
    ),
)
@options.worker_options
@click.pass_context
def start(ctx: click.Context, /, **_: Any) -> None:
    """Start the worker of a host as a daemon, and return when it takes tasks.

    It belongs to no terminal, runs in /, and writes its log into the state directory (`fleet worker status` says
    where; 8 MiB, and one file of that size before it). One that runs already is left as it is. Where it does not take
    tasks within 30 s, nothing of it is left, and the end of its log is shown. Nobody starts it again when it dies or
    the machine boots: for that let systemd run `fleet worker`.
    """
    from fleet import powers
    from fleet.local import daemon
    from fleet.local.daemon import State
    from fleet.local.launch import Launch

    call, given = invocation.current(), options.given(ctx)
    token, token_file = given.pop("token"), given.pop("token_file")
    settings = call.settings(**given)
    host = settings.resolved_host_id
    seen, begun = daemon.look(settings.host_dir(host)), False
    if seen.state is not State.RUNNING:
        options.credential(settings, host, given=token, file=token_file)  # here, where its errors are seen
        config = Path(call.config) if call.config else None
        launch = Launch(arguments=options.words(given), config=config, directory=Path.cwd())
        seen, begun = daemon.start(settings, host=host, launch=launch, say=render.say)
    if call.format == "table":
        by = "" if seen.is_ours else ", not by `fleet worker start`"
        number = f"process {seen.process.pid}" if seen.process else "in a container, perhaps"
        if begun:
            render.say(powers.of(settings).text(host))
        how = f"runs ({number})" if begun else f"runs already ({number}){by}"
        log = f"; its log is {_log(settings, host)}" if begun or seen.is_ours else ""
        render.say(f"the worker of {host} {how}{log}")
    else:
        _tell(settings, host, seen)


@click.command(
    "stop",
    cls=Command,
    examples=("fleet worker stop --host-id edge-7", "fleet worker stop --host-id edge-7 --timeout 5s --kill"),
)
@options.host_option
@click.option(
    "--timeout", type=DURATION, help="How long to wait.  [default: what its tasks have to finish in, and 12 s]"
)
@click.option("--kill", is_flag=True, default=None, help="Kill it where it has not ended by then.")
@click.pass_context
def stop(ctx: click.Context, /, *, timeout: timedelta | None, kill: bool | None, **_: Any) -> None:
    """Have the worker of a host end that `fleet worker start` has started, and wait for it.

    It takes nothing new, and what runs has the time that FLEET_STOP_GRACE said when it was started. Then it is ended,
    and the next start goes on with it. One that runs in the foreground or by systemd is left alone.
    """
    from fleet.local import daemon
    from fleet.local.daemon import State

    settings = invocation.current().settings(host_id=options.given(ctx)["host_id"])
    host = settings.resolved_host_id
    seen = daemon.stop(
        settings.host_dir(host),
        host=host,
        timeout_seconds=timeout.total_seconds() if timeout else None,
        kill=bool(kill),
        say=render.say,
    )
    match seen.state:
        case State.RUNNING:
            render.say(f"the worker of {host} has ended")
        case State.STALE:
            render.say(f"the worker of {host} does not run; its PID file was stale, and is removed")
        case State.STOPPED:
            render.say(f"the worker of {host} does not run")


@click.command("status", cls=Command, examples=("fleet worker status --host-id edge-7", "fleet worker status -o json"))
@options.host_option
@click.pass_context
def status(ctx: click.Context, /, **_: Any) -> None:
    """Say whether the worker of a host runs on this machine, since when, and where its log is.

    It looks at the process and at the lock that a worker holds, and asks no broker: `fleet health` does. It exits with
    0 where one runs, whoever has started it, and with 3 where none does.
    """
    from fleet.local import daemon
    from fleet.local.daemon import State

    settings = invocation.current().settings(host_id=options.given(ctx)["host_id"])
    host = settings.resolved_host_id
    seen = daemon.look(settings.host_dir(host))
    _tell(settings, host, seen)
    ctx.exit(0 if seen.state is State.RUNNING else NOT_RUNNING)


def _log(settings: "Settings", host: str) -> Path:
    from fleet.local import pidfile

    return settings.host_dir(host).absolute() / pidfile.LOG


def _tell(settings: "Settings", host: str, seen: "Seen") -> None:
    from fleet import clock

    uptime = seen.process.uptime_seconds() if seen.process else None
    since = clock.now() - timedelta(seconds=uptime) if uptime is not None else None
    log = _log(settings, host)
    record = {
        "host": host,
        "state": seen.state.value,
        "pid": seen.process.pid if seen.process else None,
        "started_by": _starter(seen),
        "since": since,
        "uptime_seconds": round(uptime, 1) if uptime is not None else None,
        "version": seen.record.version if seen.is_ours and seen.record else None,
        "log": str(log) if seen.is_ours or log.exists() else None,
    }
    words = {"other": "running, not by `fleet worker start`", None: seen.state.value, "start": seen.state.value}
    rows = [
        ("Host", host),
        ("State", words[_starter(seen)]),
        ("Process", record["pid"]),
        ("Since", when.both(since)),
        ("Version", record["version"]),
        ("Log", record["log"]),
    ]
    render.detail(record, key="host", rows=rows)


def _starter(seen: "Seen") -> str | None:
    if seen.is_ours:
        return "start"
    return "other" if seen.state.value == "running" else None
