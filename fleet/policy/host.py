"""The host owner's policy: what containers of the fleet may have of this host, and what less than the fleet's policy
allows may be done here, whoever asks.

A file on the host (`policy.toml`, setting `policy_file`), read once when the worker starts. What it does not grant to
containers is refused; what would give the host away whole (the Docker socket, `/`, `/etc` …) is refused whatever it
grants. Commands and files the fleet's policy grants (`fleet.policy.fleets`), and this file can only narrow that. Where
there is no file, containers are granted nothing, and nothing is narrowed. `host-policy.example.toml` explains each key.
"""

import os
import stat
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from fleet import errors
from fleet.contracts.verdicts import Decision
from fleet.policy import document
from fleet.policy.containers import ContainerPolicy
from fleet.policy.document import Section
from fleet.policy.entries import Command, FileGrant
from fleet.policy.fleets import check_names
from fleet.policy.rules import Rule
from fleet.settings import Settings

#: Where the policy is looked for that no setting names, and that does not lie beside the settings file.
USUAL_PATH = Path("/etc/fleet/policy.toml")
#: A policy is read by people; what is larger is another file.
_LARGEST_BYTES = 1024 * 1024
_REMEDY = "host-policy.example.toml explains the keys"


class ShellPolicy(Section):
    """Whether commands are run and files touched at all."""

    enabled: bool = True


class _Narrowing(Rule):
    """A rule that makes things stricter."""

    @field_validator("decision", mode="before")
    @classmethod
    def _check_decision(cls, value: Any) -> Any:
        if value == Decision.ALLOW:
            raise ValueError('a host\'s own file can only narrow what the fleet allows: "ask" or "deny"')
        return value


class HostPolicy(Section):
    """The whole file."""

    containers: ContainerPolicy = ContainerPolicy()
    shell: ShellPolicy = ShellPolicy()
    #: None leaves what the fleet lists; else a command has to be listed here, too
    commands: tuple[Command, ...] | None = Field(None, strict=False)
    files: tuple[FileGrant, ...] | None = Field(None, strict=False)
    #: they may name entries of the fleet's policy as well, which this file does not see
    rules: tuple[_Narrowing, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_names(self.commands or (), self.files or (), self.rules)
        return self


def of_host(settings: Settings) -> HostPolicy:
    """Read the policy that the settings name, or the one at the usual place if it is there; raises as `load` does."""
    return load(settings.policy_file or USUAL_PATH, required=settings.policy_file is not None)


def load(path: Path, *, required: bool) -> HostPolicy:
    """Read a host's policy; an absent file grants containers nothing and narrows nothing, unless it is `required`.

    Raises `errors.SettingsInvalid` for a file that is absent and required, that somebody else than root and this user
    could have written, or that says what no policy says; it names the key.
    """
    try:
        text = _read(path)
    except FileNotFoundError as exc:
        if required:
            raise _wrong(path, "there is no such file", "write it, or unset FLEET_POLICY_FILE") from exc
        return HostPolicy()
    except (OSError, UnicodeDecodeError) as exc:
        raise _wrong(path, f"cannot be read ({exc})", "mend it, or let the worker's user read it") from exc
    return parse(text, what=f"policy file {path}")


def parse(text: str, *, what: str = "policy") -> HostPolicy:
    """Read a host owner's file that is no file yet; raise `errors.SettingsInvalid` with every mistake in it."""
    return document.read(HostPolicy, text, what=what, remedy=_REMEDY, most_bytes=_LARGEST_BYTES)


def problems(text: str) -> tuple[str, ...]:
    """Return every mistake in a host owner's file."""
    return document.problems(HostPolicy, text, most_bytes=_LARGEST_BYTES)


def _read(path: Path) -> str:
    """Return what is in the file; all that is checked is about the very file that is read."""
    with path.open("rb") as opened:
        for what, found in (("it", os.fstat(opened.fileno())), ("its directory", path.resolve().parent.stat())):
            sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
            if found.st_uid not in {0, os.geteuid()} or (found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky):
                raise _wrong(
                    path,
                    f"others than root and the worker's user may change {what}",
                    f"chown root and chmod go-w {path if what == 'it' else path.parent}",
                )
        return opened.read(
            _LARGEST_BYTES + 1
        ).decode()  # one more than may be: a narrowing cut off in silence would widen


def _wrong(path: Path, problem: str, remedy: str) -> errors.SettingsInvalid:
    return errors.SettingsInvalid(f"policy file {path}: {problem}", remedy=remedy)
