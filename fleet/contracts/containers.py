"""Contracts about containers, and the normalised form in which a container is listed."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from fleet.contracts.contract import Contract, Reply, Request, Restart, Risk

#: A container's name or (a prefix of) its id, as the Engine accepts them (moby, daemon/names/names.go).
ContainerRef = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")]


class Port(Reply):
    """One published or exposed port. `host_ip` and `host_port` are None where it is only exposed."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str | None = None
    host_port: int | None = None


class Container(Reply):
    """One container of a host, in the form that Fleet lists, stores and sends."""

    #: the Engine's full id, 64 hexadecimal digits
    docker_id: str = Field(max_length=64)
    name: str
    image: str
    #: created, running, paused, restarting, removing, exited or dead
    state: str = Field(max_length=16)
    #: the Engine's sentence for people, such as "Up 3 minutes (healthy)"
    status: str = ""
    #: healthy, unhealthy, starting; None without a health check
    health: str | None = Field(None, max_length=16)
    ports: tuple[Port, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    created: datetime
    #: None for a container that never ran
    started: datetime | None = None


class ListContainers(Request):
    all: bool = Field(default=True, description="also those that do not run")


class Containers(Reply):
    containers: tuple[Container, ...]


class OneContainer(Request):
    container: ContainerRef = Field(description="name or id of the container")


class StopContainer(OneContainer):
    timeout_seconds: int = Field(10, ge=0, le=300, description="seconds to stop in before it is killed")


class ContainerDetails(Reply):
    container: Container
    #: the Engine's own answer to inspect
    inspect: dict[str, Any]


class ContainerState(Reply):
    """The container after the change."""

    container: Container


LIST = Contract(
    name="fleet.containers.list",
    summary="List the host's containers.",
    request=ListContainers,
    reply=Containers,
    risk=Risk.READS,
    idempotent=True,
)
INSPECT = Contract(
    name="fleet.containers.inspect",
    summary="Show one container in full.",
    request=OneContainer,
    reply=ContainerDetails,
    risk=Risk.READS,
    idempotent=True,
)
START = Contract(
    name="fleet.containers.start",
    summary="Start a container that exists.",
    request=OneContainer,
    reply=ContainerState,
    risk=Risk.CHANGES,
    idempotent=True,
)
STOP = Contract(
    name="fleet.containers.stop",
    summary="Stop a container.",
    request=StopContainer,
    reply=ContainerState,
    risk=Risk.CHANGES,
    idempotent=True,
)
RESTART = Contract(
    name="fleet.containers.restart",
    summary="Stop and start a container.",
    request=StopContainer,
    reply=ContainerState,
    risk=Risk.CHANGES,
    idempotent=False,
    on_restart=Restart.RECONCILE,
)
ALL = (LIST, INSPECT, START, STOP, RESTART)
