"""Failures: what the user reads, and what the shell gets, when a command does not end well.

One line on stderr, `fleet: error: what, with what value; what to do`, or the same as JSON with `-o json`. A traceback
only with `--debug`.
"""

import json
import sys
import traceback
from typing import Any

import click

from fleet import errors, redaction
from fleet.cli.grammar import META

INTERRUPTED = 130
#: What a shell shows for a program that SIGPIPE ended.
BROKEN_PIPE = 141


def report(exc: BaseException, context: click.Context | None) -> int:
    """Tell the user about `exc` and return the exit code."""
    if isinstance(exc, click.exceptions.Exit):
        return exc.exit_code
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        click.echo(exc.ctx.get_help() if exc.ctx else exc.format_message(), err=True)
        return exc.exit_code
    context = getattr(exc, "ctx", None) or context
    meta = context.find_root().meta if context else {}
    if meta.get(f"{META}.debug"):
        traceback.print_exception(exc)
    if isinstance(exc, KeyboardInterrupt | click.Abort):
        if not meta.get(f"{META}.quiet"):
            # The first line break ends the terminal's "^C".
            click.echo("\nfleet: interrupted", err=True)
        return INTERRUPTED
    failure = describe(exc)
    if meta.get(f"{META}.format") in {"json", "jsonl"}:
        click.echo(json.dumps({"error": failure}, default=str), err=True)
    else:
        text = f"{failure['message']}; {failure['remedy']}" if failure["remedy"] else failure["message"]
        click.secho("fleet: error: ", fg="red", nl=False, err=True, color=_color(meta))
        click.echo(redaction.for_terminal(text), err=True)
    return int(failure["exit_code"])


def describe(exc: BaseException) -> dict[str, Any]:
    """Return code, message, remedy and exit code of an error, and the data that it carries."""
    match exc:
        case errors.FleetError():
            kept = {name: value for name, value in vars(exc).items() if name not in {"message", "remedy", "code"}}
            return {
                "code": exc.code,
                "message": exc.message,
                "remedy": exc.remedy,
                "exit_code": exc.exit_code,
                **{name: value for name, value in kept.items() if isinstance(value, str | int | float | dict | list)},
            }
        case click.ClickException():
            return {"code": "usage", "message": _reword(exc), "remedy": _see_help(exc), "exit_code": exc.exit_code}
        case OSError():
            message = f"{exc.strerror or exc}" + (f": {exc.filename}" if exc.filename else "")
            return {"code": "local_fault", "message": message, "remedy": "", "exit_code": 1}
    message = f"unexpected {type(exc).__name__}: {exc}"
    return {"code": "unexpected", "message": message, "remedy": "run with --debug to see where", "exit_code": 1}


def _reword(exc: click.ClickException) -> str:
    text = exc.format_message()
    if isinstance(exc, click.NoSuchOption):
        text = f"no such option {exc.option_name}"
        if exc.possibilities:
            text += f"; did you mean {' or '.join(sorted(exc.possibilities))}?"
    return text[:1].lower() + text[1:].rstrip(".")


def _see_help(exc: click.ClickException) -> str:
    context = getattr(exc, "ctx", None)
    return f"see `{context.command_path} --help`" if context else ""


def _color(meta: dict[str, Any]) -> bool | None:
    from rich.console import Console

    plain = meta.get(f"{META}.no_color") or Console(file=sys.stderr).no_color
    return False if plain else None
