"""Wording: a request in words, as it goes on record and as people are told of it; whoever asks masks secrets."""

import hashlib
from collections.abc import Sequence

from fleet import canonical
from fleet.contracts import AnyContract, Request, files, shell

#: What the record keeps of an argument list: arguments, and characters of each.
_MOST_ARGUMENTS, LONGEST_ARGUMENT = 64, 500


def asked(contract: AnyContract, request: Request | None) -> tuple[tuple[str, ...], str | None]:
    """Return what was asked for in words, and the directory."""
    match request:
        case shell.RunCommand():
            return request.argv, request.cwd
        case files.ListFiles() | files.GetFile() | files.PutFile():
            return (contract.name.rpartition(".")[2], request.path), None
        case _:
            return (), None


def leads(request: Request, real: Request) -> str:
    """Return where a request leads, for people."""
    pairs = zip(_paths(request), _paths(real), strict=True)
    led = [f"{canonical.text(words)} leads to {canonical.text(found)}" for words, found in pairs if words != found]
    return "; ".join(led) or "the policy's own directory is a link, and leads there"


def _paths(request: Request) -> tuple[str, ...]:
    match request:
        case shell.RunCommand():
            return request.argv
        case files.ListFiles() | files.GetFile() | files.PutFile():
            return (request.path,)
        case _:
            return ()


def recorded(argv: Sequence[str]) -> tuple[str, ...]:
    """Return an argument list as far as the record keeps it, with size and digest of the rest: two that differ do so
    on record as well."""
    kept = [argument if len(argument) <= LONGEST_ARGUMENT else _shortened(argument) for argument in argv]
    if len(kept) > _MOST_ARGUMENTS:
        rest = argv[_MOST_ARGUMENTS - 1 :]
        digest = hashlib.sha256("\0".join(rest).encode()).hexdigest()
        kept[_MOST_ARGUMENTS - 1 :] = [f"… {len(rest)} arguments more, SHA-256 {digest}"]
    return tuple(kept)


def _shortened(argument: str) -> str:
    mark = f"… {len(argument):,} characters, SHA-256 {hashlib.sha256(argument.encode()).hexdigest()}"
    return argument[: LONGEST_ARGUMENT - len(mark)] + mark
