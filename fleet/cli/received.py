"""Received: what hosts say of their files, checked, and files as they come to lie on this machine.

Nothing that is there is overwritten unless that was said, and what is cannot be half overwritten.
"""

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from fleet import errors, redaction

if TYPE_CHECKING:
    from fleet.client import Outcome
    from fleet.contracts import AnyContract

_STDOUT = "-"
#: Whoever gets a file may read and write it, whatever it was on the host.
_OWNERS = 0o600


def checked(outcome: "Outcome", contract: "AnyContract") -> "Outcome":
    """Return how a run ended, with all fields of its reply.

    A host signs what it likes: what is no reply of the contract is an error.
    """
    if outcome.reply is None:
        return outcome
    try:
        reply = contract.reply.model_validate(outcome.reply).model_dump(mode="json")
        if "content" in reply:
            base64.b64decode(reply["content"], validate=True)
    except ValueError:
        problem = errors.ResultForged(f"host {outcome.host} answers what is no reply of {contract.name}")
        return replace(outcome, state="unknown", reply=None, error=problem)
    return replace(outcome, reply=reply)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the files go."""

    #: None for the standard output
    path: Path | None
    #: whether `path` is a directory, with one file for each host
    of_hosts: bool
    force: bool

    def keep(self, host: str, reply: Mapping[str, Any]) -> Path | None:
        """Keep the content of a checked reply (`FileContent`); return where it lies. Raises `errors.LocalFault`."""
        data = base64.b64decode(reply["content"])
        if self.path is None:
            _show(data)
            return None
        path = self.path / host if self.of_hosts else self.path
        try:
            if self.of_hosts:
                self.path.mkdir(parents=True, exist_ok=True)
            _write(path, data, mode=int(reply["mode"], 8) & 0o666 | _OWNERS, force=self.force)
        except FileExistsError as exc:
            raise _there(path) from exc
        except OSError as exc:
            raise errors.LocalFault(f"{path}: cannot be written ({exc.strerror})") from exc
        return path


def place(path: str, to: str | None, *, single: bool, force: bool) -> Place:
    """Return where a file goes that has this path on hosts; `single` says whether it comes from one host.

    Raises `click.UsageError` before anything is asked for, as far as that can be seen now.
    """
    if not single:
        if to is None or to == _STDOUT:
            raise click.UsageError("name a directory with -O; it gets a file for each host")
        if Path(to).exists() and not Path(to).is_dir():
            raise click.UsageError(f"-O {to}: is no directory; it gets a file for each host")
        return Place(path=Path(to), of_hosts=True, force=force)
    if to == _STDOUT:
        return Place(path=None, of_hosts=False, force=force)
    name = PurePosixPath(path).name
    where = Path(to or name)
    if where.is_dir() and name:
        where /= name
    if os.path.lexists(where) and not force:
        raise _there(where)
    return Place(path=where, of_hosts=False, force=force)


def _there(path: Path) -> click.UsageError:
    return click.UsageError(f"{path} is there already; name another file with -O, or overwrite it with --force")


def _show(data: bytes) -> None:
    """Write to the standard output: what it is to a program, and what cannot move a terminal to a person."""
    if sys.stdout.isatty():
        text = data.decode(errors="backslashreplace")
        sys.stdout.write("\t".join(redaction.for_terminal(part, keep_newlines=True) for part in text.split("\t")))
    else:
        sys.stdout.buffer.write(data)


def _write(path: Path, data: bytes, *, mode: int, force: bool) -> None:
    """Write a file as a whole; raises FileExistsError where one is there that must stay."""
    new = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}") if force else path
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(data)
        if new != path:
            new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
