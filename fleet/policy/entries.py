"""Entries of the allow-list: commands by their arguments, files by their directory, and what else may be asked for."""

import posixpath
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    StringConstraints,
    field_validator,
)

from fleet.contracts import Risk
from fleet.contracts.files import GetFile, ListFiles, PutFile
from fleet.contracts.quantities import parse_seconds
from fleet.contracts.shell import LONGEST_LIMIT, RunCommand
from fleet.contracts.verdicts import Decision
from fleet.policy import environment, patterns
from fleet.policy.document import Name, Section, printable
from fleet.policy.patterns import Below, Exactly, Pattern

#: More than any command takes that somebody waits for, in seconds.
_LONGEST = 24 * 3600
_LARGEST_FILE = 1024 * 1024

FileOperation = Literal["list", "get", "put"]
_OPERATIONS: Mapping[type, FileOperation] = {ListFiles: "list", GetFile: "get", PutFile: "put"}
FileRequest = ListFiles | GetFile | PutFile


def _duration(value: Any) -> Any:
    if not isinstance(value, str) or value.strip().replace(".", "").isdigit():
        raise ValueError('a duration is a text with its unit, such as "90s", "15m" or "1h30m"')
    return parse_seconds(value)


#: A duration in seconds, written as "15m".
Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
EntryName = Annotated[Name, AfterValidator(printable)]
PlainPath = Annotated[str, AfterValidator(patterns.plain_path)]
Labels = dict[Annotated[str, StringConstraints(min_length=1, max_length=256)], str]


class Entry(Section):
    """What every entry says: its name, where it holds, and its own decision if it has one."""

    #: what sentences about it begin with
    kind: ClassVar[str]
    name: EntryName
    labels: Labels = Field(default_factory=dict)
    #: for whatever matches, instead of the level's own; an entry cannot allow more than the level does
    decision: Decision | None = Field(None, strict=False)

    @field_validator("decision", mode="before")
    @classmethod
    def _check_decision(cls, value: object) -> object:
        if value == Decision.ALLOW:
            raise ValueError(
                'an entry can only be stricter than the level ("ask" or "deny"): leave it out, and the level decides'
            )
        return value

    def holds_on(self, labels: Mapping[str, str]) -> bool:
        """Say whether the entry is about a host with these labels."""
        return self.labels.items() <= labels.items()


class Command(Entry):
    """A command line that may be asked for, argument by argument."""

    kind = "command"
    risk: Risk = Field(strict=False)
    #: the program, an absolute path, and a pattern for each argument
    argv: tuple[Annotated[Pattern, PlainValidator(patterns.read)], ...] = Field(
        strict=False, min_length=1, max_length=256
    )
    #: directories that may be asked for, exactly; where none is asked for, the first is used, or `/`
    cwd: tuple[PlainPath, ...] = Field((), strict=False)
    #: variables that may be given
    env: dict[
        Annotated[str, AfterValidator(environment.grantable)],
        Annotated[Pattern, PlainValidator(patterns.read_variable)],
    ] = Field(default_factory=dict)
    #: most time, in seconds
    limit: Duration = Field(LONGEST_LIMIT.total_seconds(), le=_LONGEST)

    @field_validator("argv")
    @classmethod
    def _check_program(cls, value: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
        if not isinstance(value[0], Exactly) or not patterns.is_plain(value[0].text) or value[0].text == "/":
            raise ValueError("the program is an absolute path, written out: /bin/df")
        return value

    @property
    def program(self) -> str:
        """The absolute path of the program."""
        assert isinstance(self.argv[0], Exactly)
        return self.argv[0].text

    @property
    def limit_seconds(self) -> float:
        return self.limit

    def is_about(self, argv: tuple[str, ...]) -> bool:
        """Say whether an argument list names this program, by its path or the last part of it."""
        return bool(argv) and argv[0] in {self.program, posixpath.basename(self.program)}

    def lists(self, argv: tuple[str, ...]) -> bool:
        """Say whether the whole argument list is what this entry lists."""
        return (
            len(argv) == len(self.argv)
            and self.is_about(argv)
            and all(pattern.matches(each) for pattern, each in zip(self.argv[1:], argv[1:], strict=True))
        )

    def lacks(self, request: RunCommand, *, limit_seconds: float | None) -> str:
        """Return what is asked for beside the arguments and not granted; empty where all is, and for a time that nobody
        has asked for."""
        if request.cwd is not None and request.cwd not in self.cwd:
            return f"the directory {_shown(request.cwd)}"
        for name, value in request.env.items():
            if name not in self.env:
                return f"the variable {_shown(name)}"
            if not self.env[name].matches(value):
                return f"that value of the variable {name}"
        if limit_seconds is not None and not limit_seconds <= self.limit:  # so that NaN is too long as well
            return f"more than {self.limit:g} s"
        return ""

    def shares_directory(self, other: Self) -> bool:
        """Say whether there is a directory to run in that both grant, where none is asked for."""
        return not set(self.cwd or ("/",)).isdisjoint(other.cwd or ("/",))

    def led(self, lead: Callable[[str], str]) -> Self:
        """Return this entry with each directory that an argument may lie below where `lead` says it is."""
        argv = tuple(Below(lead(each.root)) if isinstance(each, Below) else each for each in self.argv)
        return self.model_copy(update={"argv": argv})

    def narrowed(self, other: Self) -> Self:
        """Return this entry with what `other`, which lists the same request, grants less of."""
        argv = tuple(_narrower(own, theirs) for own, theirs in zip(self.argv, other.argv, strict=True))
        return self.model_copy(
            update={
                "argv": argv,
                "cwd": tuple(each for each in self.cwd if each in other.cwd),
                "env": {name: pattern for name, pattern in self.env.items() if name in other.env},
                "limit": min(self.limit, other.limit),
            }
        )


class FileGrant(Entry):
    """Files below a directory, and what may be done with them."""

    kind = "files"
    root: PlainPath
    may: tuple[FileOperation, ...] = Field(strict=False, min_length=1)
    #: of one file, read or written
    most_bytes: int = Field(_LARGEST_FILE, ge=0, le=_LARGEST_FILE)
    _within: str = PrivateAttr("")

    @property
    def within(self) -> str:
        """The directory that the root itself has to lie below, where two policies name two; else empty."""
        return self._within

    def lists(self, request: FileRequest) -> bool:
        """Say whether the path lies below the root, as it is written, and the operation is among those that may be."""
        return _OPERATIONS.get(type(request)) in self.may and patterns.lies_below(request.path, self.root)

    def lacks(self, request: FileRequest) -> str:
        """Return what is asked for and not granted; empty where all is. How much is read, only the host can see."""
        if isinstance(request, PutFile) and _size(request.content) > self.most_bytes:
            return f"more than {self.most_bytes:,} bytes"
        return ""

    def led(self, lead: Callable[[str], str]) -> Self:
        """Return this grant with its directory where `lead` says it is."""
        return self.model_copy(update={"root": lead(self.root)})

    def narrowed(self, other: Self) -> Self:
        """Return this grant with what `other`, which lists the same request, grants less of."""
        # Both have the path below them as it is written, so one lies below the other; by a link it may lead elsewhere.
        outer, inner = sorted((self.root, other.root), key=len)
        narrowed = self.model_copy(
            update={
                "root": inner,
                "may": tuple(each for each in self.may if each in other.may),
                "most_bytes": min(self.most_bytes, other.most_bytes),
            }
        )
        narrowed._within = outer if outer != inner else ""  # noqa: SLF001 - of this very class
        return narrowed


def risk_of(request: FileRequest) -> Risk:
    """Return what a file operation can do."""
    return Risk.CHANGES if isinstance(request, PutFile) else Risk.READS


def paths_in(command: Command, argv: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """Return the index of each argument that is granted as a path, with each root that it must lie below once the host
    has followed its links."""
    return tuple(
        (index, root)
        for index, (pattern, argument) in enumerate(zip(command.argv, argv, strict=False))
        if isinstance(pattern, Below) and pattern.matches(argument)
        for root in (pattern.root, *pattern.within)
    )


def _narrower(own: Pattern, other: Pattern) -> Pattern:
    """Return the pattern that says more about where a path may lead; of all else the first has been matched already."""
    if not isinstance(other, Below):
        return own
    if not isinstance(own, Below) or own.root == other.root:
        return other
    # The argument lies below both as it is written, so one root lies below the other; by a link it may lead elsewhere.
    outer, inner = sorted((own.root, other.root), key=len)
    return Below(inner, within=(outer,))


def _size(content: str) -> int:
    """Return how many bytes a base64 text (checked before) stands for."""
    return len(content) // 4 * 3 - (len(content) - len(content.rstrip("=")))


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else f"{value[:77]}...")
