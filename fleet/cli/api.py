"""`fleet api`: run the REST API."""

from pathlib import Path

import click

from fleet.cli import invocation, render
from fleet.cli.grammar import Command


@click.command("api", cls=Command, examples=("fleet api", "fleet api --port 8556", "fleet api --log-format json"))
@click.option("--address", metavar="IP", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="[default: 5556; 0 for any]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: console]")
@click.pass_context
def command(ctx: click.Context, /, *, address: str | None, port: int | None, **flags: str | None) -> None:
    """Run the REST API, in the foreground, until it is told to stop.

    It does what the command line does, for programs in any language: each asks by a bearer token that
    `fleet principal token` makes, and pushes as that principal. It needs what a control worker needs: broker, database
    and the fleet's keys. Its description (OpenAPI) is at /openapi.json.
    """
    from fleet import logs

    call = invocation.current()
    settings = call.settings(api_address=address, api_port=port, **flags)
    logs.configure(settings.log_level, settings.log_format)
    from fleet.api import serving

    config = Path(call.config) if call.config else None
    ctx.exit(serving.main(settings, config=config, say=render.say))
