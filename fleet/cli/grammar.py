"""The grammar of the command line: lazy groups, examples in every help, global options before and after the verb.

`fleet --help` must answer at once, so a group knows its commands' summaries from a table and imports a command's
module only when that command is named.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from fleet import errors

#: Keys of the root context's `meta` under which the global options are kept, whichever place they were written in.
META = "fleet.cli"
FORMATS = ("table", "json", "jsonl", "yaml", "id")


def _keep(name: str, *, value: Any = None) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, given: Any) -> None:
        source = ctx.get_parameter_source(param.name or "")
        if source is click.core.ParameterSource.COMMANDLINE:
            ctx.find_root().meta[f"{META}.{name}"] = given if value is None else value

    return callback


def global_options(*, hidden: bool) -> list[click.Option]:
    """Return the options that every command takes; hidden where they would only repeat `fleet --help`."""

    def option(*declarations: str, keep: str, value: Any = None, **extra: Any) -> click.Option:
        callback = _keep(keep, value=value)
        # Eager, so that an error in any other parameter is already told in the chosen form.
        return click.Option(declarations, hidden=hidden, is_eager=True, expose_value=False, callback=callback, **extra)

    return [
        option(
            "-o", "--output", keep="format", type=click.Choice(FORMATS), help="Form of the output.  [default: table]"
        ),
        option("--json", "as_json", keep="format", value="json", is_flag=True, help="The same as -o json."),
        option("-q", "--quiet", keep="quiet", is_flag=True, help="Data and errors only, no talk."),
        option("-y", "--yes", keep="yes", is_flag=True, help="Take yes for an answer to every question."),
        option("--no-color", keep="no_color", is_flag=True, help="No colors; also by NO_COLOR or without a terminal."),
        option(
            "-c",
            "--config",
            keep="config",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Settings file.  [default: FLEET_CONFIG, ./fleet.toml, /etc/fleet/fleet.toml]",
        ),
        option("--debug", keep="debug", is_flag=True, help="Show the traceback of an error."),
    ]


class _Globals(click.Command):
    """A command that takes the global options, too, except those whose name it uses itself."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        taken = {name for param in own for name in param.opts}
        return [*own, *(option for option in global_options(hidden=True) if not taken & set(option.opts))]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(
            "-o FORMAT, --json, -q, -y, --no-color, -c FILE and --debug work here too: see `fleet --help`."
        )


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    with formatter.section("Examples"):
        formatter.write("".join(f"{'':{formatter.current_indent}}{example}\n" for example in examples))


class Command(_Globals):
    """A command with `examples`, complete lines that `--help` shows and the tests parse."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


class Group(_Globals, click.Group):
    """A group of commands of one noun; its help shows the first example of each."""

    command_class = Command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not isinstance(self, Command):  # which shows its own
            _write_examples(formatter, self.examples_of_commands(ctx))
        super().format_epilog(ctx, formatter)

    def examples_of_commands(self, ctx: click.Context) -> tuple[str, ...]:
        below = (self.get_command(ctx, name) for name in self.list_commands(ctx))
        return tuple(found.examples[0] for found in below if isinstance(found, Command))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0].startswith("-") or self.get_command(ctx, args[0]) is not None or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        hint = errors.did_you_mean(args[0], known) or f"known: {', '.join(known)}"
        raise click.UsageError(f"no such command {args[0]!r}; {hint}", ctx)


class CommandGroup(Command, Group):
    """A group that is a command, too, where no verb is named."""


@dataclass(frozen=True)
class Entry:
    """One line of the table of commands: the object's place (`module:attribute`), and its summary."""

    place: str
    summary: str
    section: str


class LazyGroup(Group):
    """The root: its commands are entries of a table, imported when they are named; so it has examples of its own."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry], examples: Sequence[str], **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.entries = entries
        self._examples = tuple(examples)

    def examples_of_commands(self, ctx: click.Context) -> tuple[str, ...]:
        return self._examples

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return click.Group.get_params(self, ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.entries:
            return None
        module, _, attribute = self.entries[cmd_name].place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in self.entries.values()):
            with formatter.section(section):
                rows = [(name, entry.summary) for name, entry in self.entries.items() if entry.section == section]
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, self._examples)
        click.Group.format_epilog(self, ctx, formatter)
