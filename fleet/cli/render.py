"""Output: the same records as a table for people, or as JSON, JSON lines, YAML or bare ids for programs.

A record is a dictionary whose keys never change (`fleet.cli.shapes` makes them). Data goes to stdout and nothing else
does; talk (`say`, `warn`) goes to stderr. Whatever came from a host is escaped on its way to a terminal.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from fleet import redaction
from fleet.cli import invocation, plain, tables
from fleet.cli.tables import Column, Record


def listing(records: Sequence[Record], *, columns: Sequence[Column], key: str, empty: str) -> None:
    """Print records of one kind; `key` names the field that is their id, `empty` is said where there are none."""
    match invocation.current().format:
        case "table":
            if records:
                tables.show(records, columns=columns)
            else:
                say(empty)
        case "jsonl" | "id":
            for record in records:
                _one(record, key=key)
        case _:
            _whole([dict(record) for record in records])


def detail(record: Record, *, key: str, rows: Iterable[tuple[str, Any]]) -> None:
    """Print one record; `rows` are the labels and values of its form for people."""
    match invocation.current().format:
        case "table":
            tables.show_detail(rows)
        case "jsonl" | "id":
            _one(record, key=key)
        case _:
            _whole(dict(record))


def compound(record: Record, *, parts: Sequence[Record], key: str, people: Callable[[], None]) -> None:
    """Print a record that holds several of one kind: whole as JSON or YAML, the parts alone as lines or ids."""
    match invocation.current().format:
        case "table":
            people()
        case "jsonl" | "id":
            for part in parts:
                _one(part, key=key)
        case _:
            _whole(dict(record))


def item(record: Record, *, line: Any, key: str) -> None:
    """Print one record of a stream as soon as it comes; `line` is its form for people (a rich Text)."""
    match invocation.current().format:
        case "table":
            tables.console().print(line, soft_wrap=True)
        case "yaml":
            click.echo("---\n" + plain.as_yaml(record), nl=False)
        case _:
            _one(record, key=key)
    sys.stdout.flush()


def say(sentence: str) -> None:
    """Tell a person something on stderr; not with `-q`."""
    if not invocation.current().quiet:
        # By Python's own stream, which a bar that is shown takes over: it puts the sentence above itself.
        sys.stderr.write(f"{redaction.for_terminal(sentence)}\n")
        sys.stderr.flush()


def warn(sentence: str) -> None:
    """Tell a person something that they must know, whatever else they asked for."""
    line = tables.styled("fleet: warning: ", "yellow") + tables.styled(sentence)
    tables.console(stderr=True).print(line, soft_wrap=True)


def _one(record: Record, *, key: str) -> None:
    if invocation.current().format == "id":
        click.echo(redaction.for_terminal(str(record[key])))
    else:
        click.echo(plain.as_json(record))


def _whole(value: Any) -> None:
    if invocation.current().format == "yaml":
        click.echo(plain.as_yaml(value), nl=False)
    else:
        click.echo(plain.as_json(value, indent=2))
