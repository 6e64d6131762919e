"""SECURITY.md promises nothing that no test shows, and names no command that does not exist."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from fleet.cli.main import root

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+)`", TEXT)))
COMMANDS = sorted(set(re.findall(r"`fleet ([a-z][^`]*)`", TEXT)))


def existing() -> set[str]:
    """Return the names of all tests there are."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py"))
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_it_names_exists() -> None:
    assert len(NAMED) > 40
    assert set(NAMED) <= existing()


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_that_it_names_exists(words: str) -> None:
    found: click.Command = root
    for word in shlex.split(words):
        if not isinstance(found, click.Group):
            break
        below = found.get_command(click.Context(found), word)
        assert below is not None, words
        found = below
    known = {option for parameter in found.params for option in parameter.opts} | {"--yes"}
    assert {word for word in shlex.split(words) if word.startswith("--")} <= known


def test_it_is_linked_from_where_people_begin() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
