"""Escaping: how a value is written so that its file's format reads exactly that value, and nothing of it as a command.

A template can put in nothing that did not pass one of these: what is not `Escaped` is an error (`only_escaped`).
"""

import json
from typing import Any


class Escaped(str):
    """Text that is ready for the place it is put."""

    __slots__ = ()


def compose(value: str) -> Escaped:
    """A scalar of a compose file: JSON, which YAML reads alike, and `$` doubled, which compose replaces."""
    return Escaped(json.dumps(value).replace("$", "$$"))


def dockerfile(value: str) -> Escaped:
    """The value of an ENV: in quotes, where a Dockerfile replaces `$NAME` and reads backslashes."""
    return Escaped('"' + _backslashed(_one_line(value), '"$') + '"')


def unit(value: str) -> Escaped:
    """A word of a systemd setting, such as an assignment of Environment=, or the program of ExecStart=, where `$` is no
    variable: in quotes, without specifiers."""
    return Escaped('"' + _backslashed(_one_line(value), '"').replace("%", "%%") + '"')


def remark(value: str) -> Escaped:
    """A part of a comment, or of a description: systemd's specifiers do no harm in the former, and are kept from the
    latter."""
    return Escaped(_one_line(value).replace("%", "%%"))


def plain(value: str) -> Escaped:
    """A pinned requirement or the name of an image, of which no character means anything."""
    if not value.replace("==", "").isprintable() or any(character in value for character in " \"'$%\\#;"):
        raise ValueError(f"{value!r} is not plain")
    return Escaped(value)


def only_escaped(value: Any) -> Any:
    """Refuse what a template puts in without saying what for."""
    if not isinstance(value, Escaped):
        raise TypeError(f"{value!r} is put into a template unescaped")
    return value


FILTERS = {each.__name__: each for each in (compose, dockerfile, unit, remark, plain)}


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{value!r} has control characters in it")
    return value


def _backslashed(value: str, characters: str) -> str:
    value = value.replace("\\", "\\\\")
    for character in characters:
        value = value.replace(character, f"\\{character}")
    return value
