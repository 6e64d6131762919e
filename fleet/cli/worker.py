"""`fleet worker`: run the worker of a host."""

from typing import TYPE_CHECKING

import click

from fleet.cli import invocation, joining, render
from fleet.cli.grammar import Command
from fleet.cli.types import HOST_ID

if TYPE_CHECKING:
    from fleet.contracts.credentials import HostCredential
    from fleet.settings import Settings


@click.command(
    "worker",
    cls=Command,
    examples=(
        "fleet worker --host-id edge-7",
        "fleet worker --host-id edge-7 --token-file /run/secrets/fleet-token",
    ),
)
@click.option("--host-id", type=HOST_ID, help="Name of the host.  [default: FLEET_HOST_ID, then the hostname]")
@click.option("--token", metavar="TOKEN", help="Enroll by this token first, where there is no credential yet.")
@joining.token_file_option
@click.option("--concurrency", type=click.IntRange(1, 256), metavar="N", help="Tasks at once.  [default: 8]")
@click.option("--docker-url", metavar="URL", help="Docker Engine.  [default: DOCKER_HOST, then the local socket]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: console]")
@click.pass_context
def command(
    ctx: click.Context, /, *, host_id: str | None, token: str | None, token_file: str | None, **flags: str | int | None
) -> None:
    """Run the worker of a host, in the foreground, until it is told to stop.

    It needs a credential: `fleet enroll` gets one, or a token here does so on the way. Whoever may push tasks to this
    host can use its Docker Engine, and that is as much as root may do.
    """
    from fleet import logs, services

    settings = invocation.current().settings(host_id=host_id, **flags)
    logs.configure(settings.log_level, settings.log_format)
    host = settings.resolved_host_id
    credential = _credential(settings, host, given=token, file=token_file)
    logs.configure(settings.log_level, settings.log_format)
    ctx.exit(services.load("workers.host.app").main(settings, host=host, credential=credential))


def _credential(settings: "Settings", host: str, *, given: str | None, file: str | None) -> "HostCredential":
    """Find the credential, or enroll where there is none and a token is at hand."""
    from fleet import credentials

    path = settings.credential_path(host)
    if not path.exists() and (token := joining.token(settings, given=given, file=file)):
        return joining.enroll(settings, host=host, token=token)
    credential = credentials.load(path, host=host)
    if given or file:
        render.say(f"{host} is enrolled already ({path}); the token is not used")
    return credential
