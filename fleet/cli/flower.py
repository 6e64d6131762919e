"""`fleet flower`: run Flower."""

import sys

import click

from fleet.cli import invocation, render
from fleet.cli.grammar import Command


@click.command("flower", cls=Command, examples=("fleet flower", "fleet flower --port 8555"))
@click.option("--address", metavar="IP", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="[default: 5555]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: console]")
@click.pass_context
def command(ctx: click.Context, /, *, address: str | None, port: int | None, **flags: str | None) -> None:
    """Run Flower, the web view of workers and tasks, in the foreground, until it is told to stop.

    It shows the workers and their tasks, and can change neither. It asks for a user and a password: those of the
    settings, or a password that is made at the first start, shown once on a terminal, and kept in the state directory.
    """
    from fleet import logs

    settings = invocation.current().settings(flower_address=address, flower_port=port, **flags)
    logs.configure(settings.log_level, settings.log_format)
    from fleet.flower import app

    # what is no terminal is a log, and a log is kept
    ctx.exit(app.main(settings, say=render.say, private=sys.stderr.isatty()))
