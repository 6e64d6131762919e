"""The contract by which a program of the host is run: an argument list, never a shell.

What may be run is listed in the fleet's policy (`fleet.policy`), argument by argument; what is not listed is denied at
every level of trust. The host's owner can narrow the list and switch it off.
"""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from fleet.contracts.contract import Contract, Reply, Request, Restart, Risk

#: Where a push says nothing, and the most without an entry that allows more.
DEFAULT_LIMIT = timedelta(seconds=60)
LONGEST_LIMIT = timedelta(minutes=5)
#: Of what a command writes, so many bytes are kept: half of them the beginning, half the end.
KEPT_BYTES = 1024 * 1024
#: As JSON, where a character may take twelve bytes; less is kept of output that would take more.
LARGEST_REPLY = 1536 * 1024

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

#: One argument. No program can be given a NUL (execve(2)), and half a surrogate pair is no text.
Argument = Annotated[str, StringConstraints(max_length=4096)]


class RunCommand(Request):
    """A program, its arguments, and what it is given beside them."""

    #: the program, by its path or, where the policy's entry has that name, by its name; then its arguments
    argv: tuple[Argument, ...] = Field(min_length=1, max_length=256)
    #: directory that it is run in; None for the one that the policy's entry says, which is `/` where it says none
    cwd: str | None = Field(None, max_length=4096)
    #: variables beside the fixed ones
    env: dict[str, Argument] = Field(default_factory=dict, max_length=64)

    @field_validator("argv")
    @classmethod
    def _check_argv(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0]:
            raise ValueError("the program has no name")
        for number, argument in enumerate(value):
            _check_text(argument, f"argument {number}")
        return value

    @field_validator("cwd")
    @classmethod
    def _check_cwd(cls, value: str | None) -> str | None:
        if value is not None:
            _check_text(value, "the directory")
            if not value.startswith("/"):
                raise ValueError("the directory is an absolute path")
        return value

    @field_validator("env")
    @classmethod
    def _check_env(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a variable")
            _check_text(text, f"variable {name}")
        return value


class CommandResult(Reply):
    """How a program ended, and what it wrote."""

    #: of the program; 128 and the signal's number where a signal ended it, as shells say it
    exit_code: int
    signal: int | None = None
    #: what it wrote, beginning and end, with known secrets masked; bytes that are no UTF-8 become U+FFFD
    stdout: str = ""
    stderr: str = ""
    #: bytes that it wrote
    stdout_bytes: int = Field(0, ge=0)
    stderr_bytes: int = Field(0, ge=0)
    #: whether the middle of either is missing
    truncated: bool = False
    #: SHA-256 of all that it wrote, with known secrets masked, hexadecimal
    stdout_sha256: str = ""
    stderr_sha256: str = ""
    duration_seconds: float = 0.0


def _check_text(value: str, what: str) -> None:
    if "\0" in value:
        raise ValueError(f"{what} has a NUL in it")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"{what} has half of a surrogate pair in it") from exc


RUN = Contract(
    name="fleet.shell.run",
    summary="Run a program of the host, as the policy lists it, and return what it wrote.",
    request=RunCommand,
    reply=CommandResult,
    risk=Risk.EXECUTES,
    idempotent=False,
    on_restart=Restart.UNKNOWN,
    limit=DEFAULT_LIMIT,
    governed=True,
    largest_reply=LARGEST_REPLY,
)
ALL = (RUN,)
