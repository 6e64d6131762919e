"""Every command at once: its help, its examples, and what the help costs."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fleet.cli.grammar import Command, Group
from fleet.cli.main import ENTRIES, root


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give every command below a group, groups that are commands among them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        if isinstance(command, Command) or not isinstance(command, click.Group):
            yield (*path, name), command


def groups(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Group]]:
    """Give every group that does nothing by itself, the root among them."""
    context = click.Context(group)
    if isinstance(group, Group) and not isinstance(group, Command):
        yield path, group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from groups(command, (*path, name))


ALL = list(commands(root))
GROUPS = list(groups(root))


@pytest.fixture(autouse=True)
def files_of_whoever_reads_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("control.password", "flower.password"):
        Path(file).touch()


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_a_command_has_help_an_example_and_options_that_say_what_they_do(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert isinstance(command, Command)
    assert command.examples
    text = command.get_help(click.Context(command, info_name=f"fleet {' '.join(path)}"))
    assert all(example in text for example in command.examples)
    assert (command.help or "").strip()
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{path}: {param.name} has no help"


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_the_examples_of_a_command_are_lines_that_it_takes(path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Command)
    for example in command.examples:
        assert command_of(example) is command


@pytest.mark.parametrize(("path", "group"), GROUPS, ids=[" ".join(path) or "fleet" for path, _ in GROUPS])
def test_a_group_has_examples_in_its_help_that_are_lines_it_takes(path: tuple[str, ...], group: Group) -> None:
    context = click.Context(group, info_name=" ".join(["fleet", *path]))
    examples = group.examples_of_commands(context)
    assert examples
    assert (group.help or "").strip()
    assert all(f"\n  {example}\n" in group.get_help(context) for example in examples)
    for example in examples:
        assert shlex.split(example)[1 : len(path) + 1] == list(path)
        command_of(example)


def command_of(example: str) -> click.Command:
    """Return the command that a line is taken by; fails where none takes it."""
    words = shlex.split(example.partition(" >")[0])
    assert words[0] == "fleet"
    context = root.make_context("fleet", words[1:])
    found: click.Command = root
    rest = [*context._protected_args, *context.args]
    while isinstance(found, click.Group) and rest:
        _, resolved, rest = found.resolve_command(context, rest)
        assert resolved is not None
        found = resolved
        context = found.make_context(found.name, rest, parent=context)
        rest = [*context._protected_args, *context.args]
    return found


@pytest.mark.parametrize("name", ENTRIES)
def test_the_help_of_a_command_begins_with_its_summary(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert (command.help or "").replace("\n", " ").startswith(ENTRIES[name].summary.rstrip("."))


@pytest.mark.parametrize("words", [["--help"], ["task", "--help"], ["push-task", "--help"], ["completion", "bash"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"""
import sys
from fleet.cli.main import main
try:
    main({words!r})
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"celery", "kombu", "redis", "docker", "sqlmodel", "sqlalchemy", "pydantic", "rich", "yaml", "structlog"}}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_the_exit_codes_stand_in_the_help() -> None:
    text = root.get_help(click.Context(root, info_name="fleet"))
    for code in (
        "0  ok",
        "1  the task failed",
        "2  usage",
        "3  partly",
        "4  refused",
        "5  not reachable",
        "124",
        "130",
    ):
        assert code in text
