"""What containers of the fleet may have of a host: a section of its owner's policy."""

from itertools import permutations
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from fleet.contracts.container_demands import GPUS, NAMESPACES, Demand
from fleet.contracts.container_parts import Capability, SecurityOption, Source
from fleet.policy.document import Section

_Device = Annotated[str, StringConstraints(pattern=rf"^({GPUS}|/.+)$")]
_Namespace = Annotated[
    str,
    StringConstraints(pattern=rf"^({'|'.join(NAMESPACES)}):(host|container:[a-zA-Z0-9][a-zA-Z0-9_.-]{{0,127}})$"),
]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class BindGrant(Section):
    """A directory or file of the host that containers may have: this very one, and nothing below it by itself.

    Exactly one, because a container that may write to a directory can put links there, and what is below it leads
    wherever they do.
    """

    source: Source
    read_only: bool = False


class ContainerPolicy(Section):
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
