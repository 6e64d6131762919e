"""`fleet worker`: run the worker of a host, here or as a daemon."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import failures, invocation, render
from fleet.cli.grammar import CommandGroup
from fleet.cli.worker import daemon
from fleet.cli.worker.options import credential, words, worker_options

if TYPE_CHECKING:
    from fleet.local.launch import Launch
    from fleet.settings import Settings


@click.group(
    "worker",
    cls=CommandGroup,
    invoke_without_command=True,
    examples=(
        "fleet worker --host-id edge-7",
        "fleet worker --host-id edge-7 --token-file /run/secrets/fleet-token",
        "fleet worker --host-id edge-7 --no-shell",
    ),
)
@worker_options
@click.option(
    "--ready-fd", type=click.IntRange(3), hidden=True, help="Be what `fleet worker start` starts, and tell it here."
)
@click.pass_context
def group(
    ctx: click.Context,
    /,
    *,
    host_id: str | None,
    token: str | None,
    token_file: str | None,
    ready_fd: int | None,
    **flags: Any,
) -> None:
    """Run the worker of a host, in the foreground, until it is told to stop; `start` makes it a daemon.

    It needs a credential: `fleet enroll` gets one, or a token here does so on the way. Whoever may push tasks to this
    host can use its Docker Engine, and that is as much as root may do.

    It says how it is at http://127.0.0.1:8000/health (FLEET_HEALTH_ADDRESS), which `fleet health worker` asks, and
    tells systemd where that wants to know (Type=notify, WatchdogSec=).
    """
    if ctx.invoked_subcommand is not None:
        return
    from fleet import logs, services
    from fleet.local import launch

    call = invocation.current()
    settings = call.settings(host_id=host_id, **flags)
    host = settings.resolved_host_id
    how = launch.of_this_process(arguments=words(flags), config=Path(call.config) if call.config else None)
    if ready_fd is not None:
        ctx.exit(_detached(settings, host=host, told=ready_fd, how=how))
    logs.configure(settings.log_level, settings.log_format, about={"host": host})
    held = credential(settings, host, given=token, file=token_file)
    logs.configure(settings.log_level, settings.log_format, about={"host": host})
    main = services.load("workers.host.app").main
    noted, stays = launch.noted(settings.host_dir(host), how), settings.stay_when_ended
    ctx.exit(main(settings, host=host, credential=held, say=render.say, recorded=noted, stays=stays))


def _detached(settings: "Settings", *, host: str, told: int, how: "Launch") -> int:
    """Run the worker that `fleet worker start` waits for; return the exit code."""
    from fleet import credentials, logs, services
    from fleet.local.detached import Detached

    settings = settings.anchored()
    worker = Detached(settings, host=host, told=told)
    logs.configure(settings.log_level, settings.log_format, stream=worker.log, about={"host": host})
    try:
        code: int = services.load("workers.host.app").main(
            settings,
            host=host,
            credential=credentials.load(settings.credential_path(host), host=host),
            say=render.say,
            recorded=worker.recorded(how),
            on_alive=worker.ready,
        )
    except Exception as exc:
        worker.failed(failures.describe(exc)["message"])
        raise
    return code


for _verb in (daemon.start, daemon.stop, daemon.status):
    group.add_command(_verb)
