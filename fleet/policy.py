"""The host owner's policy: what containers of the fleet may have of this host, whoever asks.

A file on the host (`policy.toml`, setting `policy_file`), read once when the worker starts. What it does not grant is
refused; what would give the host away whole (the Docker socket, `/`, `/etc` …) is refused whatever it grants. Where
there is no file nothing is granted. `policy.example.toml` explains each key.
"""

import os
import stat
import tomllib
from itertools import permutations
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from pydantic_core import ErrorDetails

from fleet import errors
from fleet.contracts.container_demands import GPUS, NAMESPACES, Demand
from fleet.contracts.container_parts import Capability, SecurityOption, Source
from fleet.settings import Settings

#: Where the policy is looked for that no setting names, and that does not lie beside the settings file.
USUAL_PATH = Path("/etc/fleet/policy.toml")
#: A policy is read by people; what is larger is another file.
_LARGEST_BYTES = 1024 * 1024

_Device = Annotated[str, StringConstraints(pattern=rf"^({GPUS}|/.+)$")]
_Namespace = Annotated[
    str,
    StringConstraints(pattern=rf"^({'|'.join(NAMESPACES)}):(host|container:[a-zA-Z0-9][a-zA-Z0-9_.-]{{0,127}})$"),
]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BindGrant(_Section):
    """A directory or file of the host that containers may have: this very one, and nothing below it by itself.

    Exactly one, because a container that may write to a directory can put links there, and what is below it leads
    wherever they do.
    """

    source: Source
    read_only: bool = False


class ContainerPolicy(_Section):
    """What containers may have, and which of them may be acted on."""

    #: "managed": only containers that Fleet made are started, stopped, removed or read
    manage: Literal["all", "managed"] = "all"
    privileged: bool = False
    capabilities: tuple[Capability, ...] = Field((), strict=False)
    binds: tuple[BindGrant, ...] = Field((), strict=False)
    devices: tuple[_Device, ...] = Field((), strict=False)
    namespaces: tuple[_Namespace, ...] = Field((), strict=False)
    security_opt: tuple[SecurityOption, ...] = Field((), strict=False)
    sysctls: tuple[_Word, ...] = Field((), strict=False)
    runtimes: tuple[_Word, ...] = Field((), strict=False)
    cgroup_parents: tuple[_Word, ...] = Field((), strict=False)
    volume_drivers: tuple[_Word, ...] = Field((), strict=False)
    volumes_from: tuple[_Word, ...] = Field((), strict=False)

    @field_validator("binds")
    @classmethod
    def _check_binds(cls, value: tuple[BindGrant, ...]) -> tuple[BindGrant, ...]:
        for outer, inner in permutations(value, 2):
            if not outer.read_only and PurePath(inner.source).is_relative_to(outer.source):
                raise ValueError(
                    f"{inner.source} lies in {outer.source}, which containers may write: a link that one of them puts "
                    "there would lead the other anywhere; grant one of the two, or the outer one read-only"
                )
        return value

    def grants(self, demand: Demand) -> bool:
        """Say whether a demand is granted by its words. Paths are compared as they are written; the host resolves
        links on both sides before it asks."""
        match demand.key:
            case "privileged":
                return self.privileged
            case "binds":
                return any(
                    each.source == demand.value and (demand.read_only or not each.read_only) for each in self.binds
                )
            case "capabilities":
                return demand.value in self.capabilities or "ALL" in self.capabilities
            case key:
                return demand.value in getattr(self, key)


class Policy(_Section):
    """The whole file."""

    containers: ContainerPolicy = ContainerPolicy()


def of_host(settings: Settings) -> Policy:
    """Read the policy that the settings name, or the one at the usual place if it is there; raises as `load` does."""
    return load(settings.policy_file or USUAL_PATH, required=settings.policy_file is not None)


def load(path: Path, *, required: bool) -> Policy:
    """Read a host's policy; an absent file grants nothing, unless it is `required`.

    Raises `errors.SettingsInvalid` for a file that is absent and required, that somebody else than root and this user
    could have written, or that says what no policy says; it names the key.
    """
    try:
        text = _read(path)
    except FileNotFoundError as exc:
        if required:
            raise _wrong(path, "there is no such file", "write it, or unset FLEET_POLICY_FILE") from exc
        return Policy()
    except (OSError, UnicodeDecodeError) as exc:
        raise _wrong(path, f"cannot be read ({exc})", "mend it, or let the worker's user read it") from exc
    try:
        return Policy.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise _wrong(path, f"is not TOML ({exc})", "mend it") from exc
    except ValidationError as exc:
        raise _wrong(path, "; ".join(map(_explain, exc.errors())), "policy.example.toml explains the keys") from exc


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
        return opened.read(_LARGEST_BYTES).decode()


def _wrong(path: Path, problem: str, remedy: str) -> errors.SettingsInvalid:
    return errors.SettingsInvalid(f"policy file {path}: {problem}", remedy=remedy)


def _explain(error: ErrorDetails) -> str:
    place = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg'].removeprefix('Value error, ')}"
    *path, name = map(str, error["loc"])
    models: tuple[type[BaseModel], ...] = (Policy, ContainerPolicy, BindGrant)
    model = models[min(len(path), 2)]
    hint = errors.did_you_mean(name, list(model.model_fields))
    return f"{place}: there is no such key{f', {hint}' if hint else ''}"
