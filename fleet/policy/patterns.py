"""Patterns: what one argument, or one variable, may be. Exact, whole, and as written.

Nothing here is a prefix, a glob or an expression of the user's, and no text is normalised before it is compared: what
looks alike is not the same. Only a literal can begin with `-`, because such a word is an option, and options of
harmless programs run others.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet import errors

#: As `contracts.shell.Argument` has it.
LONGEST = 4096
#: As `contracts.containers.ContainerRef` has it.
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,127}")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}")
_LARGEST_WHOLE = 10**18


@dataclass(frozen=True)
class Exactly:
    """This text and no other."""

    text: str

    def matches(self, argument: str) -> bool:
        return argument == self.text


@dataclass(frozen=True)
class OneOf:
    """One of these texts."""

    texts: tuple[str, ...]

    def matches(self, argument: str) -> bool:
        return argument in self.texts


@dataclass(frozen=True)
class Whole:
    """A whole number, both ends included, in decimal digits without sign and leading zeros."""

    least: int
    most: int

    def matches(self, argument: str) -> bool:
        return _WHOLE.fullmatch(argument) is not None and self.least <= int(argument) <= self.most


@dataclass(frozen=True)
class AnyContainer:
    """A container's name or id."""

    def matches(self, argument: str) -> bool:
        return _CONTAINER.fullmatch(argument) is not None


@dataclass(frozen=True)
class AnyWord:
    """A word of ASCII letters, digits, `_`, `.`, `@`, `:` and `-` that begins with a letter or digit."""

    def matches(self, argument: str) -> bool:
        return _WORD.fullmatch(argument) is not None


@dataclass(frozen=True)
class Below:
    """A path that is the root or lies below it as it is written; where links lead is for the host to see."""

    root: str
    #: where it has to lie as well, by the file of the host's owner or the fleet's policy
    within: tuple[str, ...] = ()

    def matches(self, argument: str) -> bool:
        return lies_below(argument, self.root)


Pattern = Exactly | OneOf | Whole | AnyContainer | AnyWord | Below


def read(value: object) -> Pattern:
    """Return the pattern that a policy writes: a text, or a table with one key. Raises ValueError."""
    if isinstance(value, str):
        return Exactly(_text(value))
    if isinstance(value, Mapping) and len(value) == 1:
        [(kind, argument)] = value.items()
        if kind in _READERS:
            return _READERS[kind](argument)
        hint = errors.did_you_mean(str(kind), list(_READERS))
        raise ValueError(f"there is no pattern {str(kind)[:80]!r}, {hint or _known()}")
    raise ValueError(f"a pattern is a text, or a table with one of {', '.join(_READERS)}")


def read_variable(value: object) -> Pattern:
    """Return the pattern of a variable's value: as `read`, a list for one of its texts, and no path."""
    found = _one_of(value) if isinstance(value, list | tuple) else read(value)
    if isinstance(found, Below):
        problem = "a variable cannot be granted by a path: where links lead is seen for arguments only"
        raise ValueError(problem)  # noqa: TRY004 - pydantic collects these
    return found


def lies_below(path: str, root: str) -> bool:
    """Say whether a plain path is `root` or lies below it, as the two are written."""
    return is_plain(path) and (path == root or path.startswith(f"{root.rstrip('/')}/"))


def is_plain(path: str) -> bool:
    """Say whether a path is absolute, without `.`, `..`, empty parts and control characters."""
    return (
        path.startswith("/")
        and len(path) <= LONGEST
        and (path == "/" or not any(part in {"", ".", ".."} for part in path[1:].split("/")))
        and not any(unicodedata.category(character) in {"Cc", "Cs"} for character in path)
    )


def plain_path(value: str) -> str:
    """Check a path in a policy."""
    if not is_plain(value):
        raise ValueError(f"{value[:80]!r}: write an absolute path without '.', '..' and double or trailing slashes")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value or len(value) > LONGEST:
        raise ValueError(f"{repr(value)[:80]}: an argument is a text without NUL, of at most {LONGEST:,} characters")
    return value


def _one_of(value: object) -> OneOf:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("enum takes a list of at least one text")
    return OneOf(tuple(map(_text, value)))


def _whole(value: object) -> Whole:
    match value:
        case [int(least), int(most)] if 0 <= least <= most <= _LARGEST_WHOLE and bool not in {type(least), type(most)}:
            return Whole(least, most)
    raise ValueError("integer takes [least, most], two whole numbers of which neither is below 0")


def _below(value: object) -> Below:
    return Below(plain_path(_text(value)))


def _flag(kind: str, pattern: Pattern) -> Callable[[object], Pattern]:
    def check(value: object) -> Pattern:
        if value is not True:
            raise ValueError(f"write {{ {kind} = true }}")
        return pattern

    return check


_READERS: Mapping[str, Callable[[Any], Pattern]] = {
    "enum": _one_of,
    "integer": _whole,
    "container": _flag("container", AnyContainer()),
    "word": _flag("word", AnyWord()),
    "path": _below,
}


def _known() -> str:
    return f"there are {', '.join(_READERS)}"
