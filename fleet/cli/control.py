"""`fleet control`: run a control worker."""

import click

from fleet.cli import invocation
from fleet.cli.grammar import Command


@click.command("control", cls=Command, examples=("fleet control", "fleet control --log-format json"))
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: console]")
@click.pass_context
def command(ctx: click.Context, /, **flags: str | None) -> None:
    """Run a control worker, in the foreground, until it is told to stop.

    It enrolls hosts, writes what they report into the database, and keeps the audit. Several may run; one at a time
    writes. It needs FLEET_BROKER_URL, and keeps an SQLite file unless FLEET_DATABASE_URL names another database.

    It says how it is at http://127.0.0.1:8001/health (FLEET_HEALTH_ADDRESS), which `fleet health control` asks, and
    tells systemd where that wants to know (Type=notify, WatchdogSec=).
    """
    from fleet import logs, services

    settings = invocation.current().settings(**flags)
    logs.configure(settings.log_level, settings.log_format)
    ctx.exit(services.load("workers.control.app").main(settings))
