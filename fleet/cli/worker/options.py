"""Options of a worker, before the verb or after it, and what they come to."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import joining, render
from fleet.cli.types import HOST_ID

if TYPE_CHECKING:
    from fleet.contracts.credentials import HostCredential
    from fleet.settings import Settings

_LEVELS = click.Choice(["debug", "info", "warning", "error"])

host_option = click.option(
    "--host-id", type=HOST_ID, help="Name of the host.  [default: FLEET_HOST_ID, then the hostname]"
)
no_shell_option = click.option(
    "--no-shell",
    "shell",
    is_flag=True,
    flag_value=False,
    default=None,
    help="Refuse commands and files on this host, whatever policy is pushed to it.",
)
unlisted_option = click.option(
    "--unlisted",
    is_flag=True,
    default=None,
    help="Tell nobody that this host is there and what it runs. Push to it with --offline queue.",
)
#: From the first that the help shows to the last.
_OF_WORKERS = (
    host_option,
    click.option("--token", metavar="TOKEN", help="Enroll by this token first, where there is no credential yet."),
    joining.token_file_option,
    click.option("--concurrency", type=click.IntRange(1, 256), metavar="N", help="Tasks at once.  [default: 8]"),
    click.option("--docker-url", metavar="URL", help="Docker Engine.  [default: DOCKER_HOST, then the local socket]"),
    no_shell_option,
    unlisted_option,
    click.option("--log-level", type=_LEVELS, help="[default: info]"),
    click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: console]"),
)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of everything that runs a worker."""
    for option in reversed(_OF_WORKERS):
        command = option(command)
    return command


def given(ctx: click.Context) -> dict[str, Any]:
    """Return a verb's options, with those that stood before the verb.

    Raises `click.UsageError` for one before the verb that the verb does not take.
    """
    before = {name: value for name, value in (ctx.parent.params if ctx.parent else {}).items() if value is not None}
    for param in ctx.parent.command.params if ctx.parent else ():
        if param.name in before and param.name not in ctx.params:
            raise click.UsageError(f"{param.opts[0]} means nothing to `{ctx.command_path}`", ctx)
    return {**ctx.params, **before, **{name: value for name, value in ctx.params.items() if value is not None}}


def words(flags: "dict[str, Any]") -> tuple[str, ...]:
    """Return the command line that gives a worker these flags of `worker_options`."""
    named = {"concurrency": "--concurrency", "docker_url": "--docker-url"}
    named |= {"log_level": "--log-level", "log_format": "--log-format"}
    found = [word for name, flag in named.items() if flags[name] is not None for word in (flag, str(flags[name]))]
    switches = {"--no-shell": flags["shell"] is False, "--unlisted": flags["unlisted"] is True}
    return (*found, *(word for word, on in switches.items() if on))


def credential(settings: "Settings", host: str, *, given: str | None, file: str | None) -> "HostCredential":
    """Find the credential, or enroll where there is none and a token is at hand."""
    from fleet import credentials

    path = settings.credential_path(host)
    if not path.exists() and (token := joining.token(settings, given=given, file=file)):
        return joining.enroll(settings, host=host, token=token)
    held = credentials.load(path, host=host)
    if given or file:
        render.say(f"{host} is enrolled already ({path}); the token is not used")
    return held
