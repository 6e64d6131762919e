"""The spec of a container: what may be asked of a host, typed, and nothing that is not written here.

The host builds the Engine's request from it; nothing passes through. What gives a container power over the host stands
in the second half, and takes the grant of the host's own policy (`fleet.contracts.container_demands`, `fleet.policy`).
Sizes may be written as "512m", durations as "1m30s".
"""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from fleet import canonical
from fleet.contracts import container_words
from fleet.contracts.container_parts import (
    MOST,
    BindMount,
    Capability,
    Device,
    HealthCheck,
    LogLimits,
    Name,
    PublishedPort,
    SecurityOption,
    Target,
    Text,
    TmpfsMount,
    Ulimit,
    VolumeMount,
    check_targets,
    spelled,
)
from fleet.contracts.contract import Request
from fleet.contracts.images import ImageRef
from fleet.contracts.quantities import Bytes, Seconds
from fleet.contracts.secrets import MOST as MOST_SECRETS
from fleet.contracts.secrets import SecretRef

#: Of the spec in canonical JSON.
LARGEST_BYTES = 64 * 1024
#: Labels that Fleet itself gives; nobody else may.
OWN_LABELS = "fleet."
#: Words for networks that are none of a user's own, and what they mean is asked for with `network_mode`.
_NO_NETWORKS = ("host", "default")
_CONTAINER = r"container:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}"

#: What the Engine takes for a container's name (moby, daemon/names/names.go).
ContainerName = Annotated[
    str, spelled(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}", "name: use 2 to 128 letters, digits, '_', '.' and '-'")
]
#: A name of the host's tables, such as a runtime or a kernel setting.
Word = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,127}$")]


class ContainerSpec(Request):
    """One container. Everything but `image` may be left out."""

    image: ImageRef
    name: ContainerName | None = Field(None, description="the Engine finds one where it is not said")
    command: tuple[Text, ...] | None = Field(None, max_length=1024)
    entrypoint: tuple[Text, ...] | None = Field(None, max_length=MOST)
    environment: dict[Text, Text] = Field(default_factory=dict, max_length=MOST)
    labels: dict[Text, Text] = Field(default_factory=dict, max_length=MOST)
    ports: tuple[PublishedPort, ...] = Field((), max_length=MOST)
    volumes: tuple[VolumeMount, ...] = Field((), max_length=MOST)
    tmpfs: tuple[TmpfsMount, ...] = Field((), max_length=MOST)
    networks: tuple[Name, ...] = Field(
        (), max_length=32, description="networks there are on the host, `bridge`, or `none` alone"
    )
    restart: Annotated[str, StringConstraints(pattern=r"^(no|always|unless-stopped|on-failure(:[0-9]{1,4})?)$")] = "no"
    user: Annotated[Text, StringConstraints(min_length=1, max_length=256)] | None = None
    working_dir: Target | Literal["/"] | None = None
    health_check: HealthCheck | None = None
    memory: Bytes | None = Field(None, ge=6 * 1024**2)  # the Engine's least
    cpus: float | None = Field(None, ge=0.01, le=4096)
    pids: int | None = Field(None, ge=1, le=2**22)
    log: LogLimits = LogLimits()
    stop_signal: Annotated[str, StringConstraints(pattern=r"^(SIG)?[A-Z0-9+-]{1,16}$")] | None = None
    stop_timeout: Seconds | None = Field(None, ge=0, le=86_400, description="seconds to stop in before it is killed")
    init: bool | None = Field(None, description="a small process 1 that forwards signals and ends zombies")
    read_only: bool = Field(default=False, description="the root file system")
    hostname: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$")] | None = (
        None
    )
    extra_hosts: dict[Name, Annotated[str, StringConstraints(pattern=r"^(host-gateway|[0-9a-fA-F:.]{2,45})$")]] = Field(
        default_factory=dict, max_length=MOST, description="names and their addresses, for /etc/hosts"
    )
    ulimits: tuple[Ulimit, ...] = Field((), max_length=32)
    shm_size: Bytes | None = Field(None, ge=4096)
    cap_drop: tuple[Capability, ...] = Field((), max_length=64)
    no_new_privileges: bool = False
    secrets: tuple[SecretRef, ...] = Field((), max_length=MOST_SECRETS)

    # What takes the host's grant.
    privileged: bool = False
    cap_add: tuple[Capability, ...] = Field((), max_length=64)
    binds: tuple[BindMount, ...] = Field((), max_length=MOST)
    devices: tuple[Device, ...] = Field((), max_length=MOST)
    gpus: Literal["all"] | tuple[Word, ...] | None = Field(None, description='"all", or the ids of some')
    network_mode: Annotated[str, StringConstraints(pattern=f"^(host|{_CONTAINER})$")] | None = None
    pid_mode: Annotated[str, StringConstraints(pattern=f"^(host|{_CONTAINER})$")] | None = None
    ipc_mode: Annotated[str, StringConstraints(pattern=f"^(none|private|shareable|host|{_CONTAINER})$")] | None = None
    uts_mode: Literal["host"] | None = None
    userns_mode: Literal["host"] | None = None
    cgroupns_mode: Literal["private", "host"] | None = None
    security_opt: tuple[SecurityOption, ...] = Field((), max_length=32)
    sysctls: dict[Word, Text] = Field(default_factory=dict, max_length=MOST)
    runtime: Word | None = None
    cgroup_parent: Text | None = Field(None, min_length=1, max_length=512)
    volumes_from: tuple[
        Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}(:ro|:rw)?$")], ...
    ] = Field((), max_length=32, description="containers whose mounts this one gets as well")

    @classmethod
    def about_unknown(cls, name: str, value: Any) -> str:
        return container_words.about(name, value, list(cls.model_fields))

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not name or "=" in name:
                raise ValueError(f"{name!r} is no name of a variable")
        return value

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not name or name.startswith(OWN_LABELS):
                raise ValueError(f"{name!r}: labels that begin with '{OWN_LABELS}' are Fleet's own; take another name")
        return value

    @field_validator("networks")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name in _NO_NETWORKS:
                raise ValueError(f"{name!r} is no network of its own; `network_mode` asks for the host's")
        if "none" in value and len(value) > 1:
            raise ValueError("'none' stands alone")
        if len(set(value)) < len(value):
            raise ValueError("names a network twice")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "ContainerSpec":
        if self.network_mode and (self.networks or self.ports):
            raise ValueError("network_mode: with another's network there are no networks and ports of its own")
        mounts: tuple[VolumeMount | BindMount | TmpfsMount, ...] = (*self.volumes, *self.binds, *self.tmpfs)
        check_targets([each.target for each in mounts], with_secrets=bool(self.secrets))
        files = [ref.target for ref in self.secrets]
        if len(set(files)) < len(files):
            raise ValueError("secrets: two of them would be the same file")
        size = len(self.canonical())
        if size > LARGEST_BYTES:
            raise ValueError(f"is {size:,} bytes as JSON; {LARGEST_BYTES:,} are the most")
        return self

    def canonical(self) -> bytes:
        """Return the bytes that mean this spec: what is left out is not in them, however it was left out."""
        return canonical.encode(canonical.plain(self.model_dump(mode="json", exclude_defaults=True)))

    def digest(self) -> str:
        """Return 32 hexadecimal digits of the SHA-256 of the canonical spec."""
        return hashlib.sha256(self.canonical()).hexdigest()[:32]
