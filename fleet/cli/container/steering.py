"""`fleet container start | stop | restart | kill | rm | inspect | wait`: containers that are there."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import click

from fleet.cli import selection
from fleet.cli.container import pushing
from fleet.cli.grammar import Command
from fleet.cli.types import DURATION

_WHICH = click.argument("container")


def _declared(name: str, *examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Return what makes a command on one container of each host of a function."""

    def declare(function: Callable[..., Any]) -> click.Command:
        return click.command(name, cls=Command, examples=examples)(
            _WHICH(selection.options(pushing.options(click.pass_context(function))))
        )

    return declare


@_declared("start", "fleet container start web --host edge-7", "fleet container start web -l env=prod")
def start(ctx: click.Context, *, container: str, **where: Any) -> None:
    """Start a container, by its name or id."""
    from fleet.contracts import containers

    ctx.exit(pushing.carry_out(containers.START, {"container": container}, brief=pushing.state, **where))


_TIME = click.option(
    "-t", "--time", "patience", type=DURATION, default="10s", show_default=True, help="Kill it after that."
)


@_declared("stop", "fleet container stop web --host edge-7", "fleet container stop web -l env=lab --time 1m")
@_TIME
def stop(ctx: click.Context, *, container: str, patience: timedelta, **where: Any) -> None:
    """Stop a container, and kill it if it does not stop in time."""
    from fleet.contracts import containers

    wanted = {"container": container, "timeout_seconds": int(patience.total_seconds())}
    ctx.exit(pushing.carry_out(containers.STOP, wanted, brief=pushing.state, **where))


@_declared("restart", "fleet container restart web --host edge-7")
@_TIME
def restart(ctx: click.Context, *, container: str, patience: timedelta, **where: Any) -> None:
    """Stop a container and start it again."""
    from fleet.contracts import containers

    wanted = {"container": container, "timeout_seconds": int(patience.total_seconds())}
    ctx.exit(pushing.carry_out(containers.RESTART, wanted, brief=pushing.state, **where))


@_declared("kill", "fleet container kill web --host edge-7", "fleet container kill web --host edge-7 -s HUP")
@click.option("-s", "--signal", default="KILL", show_default=True, help="Name or number of the signal.")
def kill(ctx: click.Context, *, container: str, signal: str, **where: Any) -> None:
    """Send a signal to a container's first process."""
    from fleet.contracts import containers

    wanted = {"container": container, "signal": signal.upper()}
    ctx.exit(pushing.carry_out(containers.KILL, wanted, brief=pushing.state, **where))


@_declared("rm", "fleet container rm web --host edge-7", "fleet container rm web -l env=lab --force --volumes")
@click.option("-f", "--force", is_flag=True, help="Also one that runs: kill it.")
@click.option("--volumes", is_flag=True, help="Also the volumes that came with it and nobody else uses.")
def rm(ctx: click.Context, *, container: str, force: bool, volumes: bool, **where: Any) -> None:
    """Remove a container for good, with its secrets."""
    from fleet.contracts import containers

    wanted = {"container": container, "force": force, "volumes": volumes}
    ctx.exit(pushing.carry_out(containers.REMOVE, wanted, brief=_removed, **where))


@_declared("inspect", "fleet container inspect web --host edge-7 -o json")
def inspect(ctx: click.Context, *, container: str, **where: Any) -> None:
    """Show all that the Engine knows of a container."""
    from fleet.contracts import containers

    ctx.exit(pushing.carry_out(containers.INSPECT, {"container": container}, brief=None, **where))


@_declared("wait", "fleet container wait backup --host edge-7 --timeout 1h")
def wait(ctx: click.Context, *, container: str, **where: Any) -> None:
    """Wait until a container has stopped, and tell its exit code."""
    from fleet.contracts import containers

    ctx.exit(pushing.carry_out(containers.WAIT, {"container": container}, brief=_exited, **where))


def _removed(reply: Mapping[str, Any]) -> str:
    gone = [f"volume {name}" for name in reply.get("volumes") or ()]
    return ", ".join(["removed", *gone])


def _exited(reply: Mapping[str, Any]) -> str:
    name = (reply.get("container") or {}).get("name") or ""
    error = f" ({reply['error']})" if reply.get("error") else ""
    return f"{name}  exit code {reply.get('exit_code')}{error}"
