"""Contracts about containers, and the normalised form in which a container is listed."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from fleet.contracts.container_spec import ContainerSpec
from fleet.contracts.contract import Contract, Reply, Request, Restart, Risk
from fleet.contracts.images import PullPolicy

#: A container's name or (a prefix of) its id, as the Engine accepts them (moby, daemon/names/names.go).
ContainerRef = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")]


class Label(StrEnum):
    """Labels of containers and volumes that Fleet makes."""

    #: "true"
    MANAGED = "fleet.managed"
    #: the host that it was made on
    HOST = "fleet.host"
    #: the run that made it
    RUN = "fleet.run"
    #: who pushed that run
    PRINCIPAL = "fleet.principal"
    #: 32 hexadecimal digits of the hash of its spec (`ContainerSpec.digest`)
    SPEC = "fleet.spec"
    #: the Engine's id of the container whose place it takes, and whether that was running; empty where it takes none
    REPLACES = "fleet.replaces"
    REPLACES_RUNNING = "fleet.replaces.running"


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

    @property
    def managed(self) -> bool:
        """Whether Fleet made it."""
        return self.labels.get(Label.MANAGED) == "true"


class ListContainers(Request):
    all: bool = Field(default=True, description="also those that do not run")
    managed: bool = Field(default=False, description="only those that Fleet made")


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


class CreateContainer(Request):
    spec: ContainerSpec
    start: bool = Field(default=True, description="start it, too")
    pull: PullPolicy = Field(PullPolicy.MISSING, description="when the image is pulled")
    replace: bool = Field(
        default=False, description="take the place of the container of that name, which goes with its unnamed volumes"
    )


class ContainerCreated(Reply):
    container: Container
    #: False where an earlier attempt at the run had made it
    created: bool
    #: what the Engine remarked, such as a limit that its kernel does not have
    warnings: tuple[str, ...] = ()


class CheckContainer(Request):
    spec: ContainerSpec


class Denial(Reply):
    """One thing that the host does not let a container have."""

    #: where it stands in the spec, such as "binds.0"
    field: str
    reason: str
    #: the line of the host's policy that would grant it; empty for what no policy can
    grant: str = ""


class ContainerCheck(Reply):
    allowed: bool
    denials: tuple[Denial, ...]
    #: what the Engine would be asked for
    request: dict[str, Any]


class KillContainer(OneContainer):
    signal: Annotated[str, StringConstraints(pattern=r"^((SIG)?[A-Z][A-Z0-9+-]{1,15}|[1-9][0-9]?)$")] = Field(
        "KILL", description="name or number of the signal"
    )


class RemoveContainer(OneContainer):
    force: bool = Field(default=False, description="also one that runs, which is killed")
    volumes: bool = Field(
        default=False,
        description="also its unnamed volumes, and the named ones that were made with it and nobody else uses",
    )


class ContainerRemoved(Reply):
    #: as it was before; None where an earlier attempt at the run had removed it already
    container: Container | None
    #: names of the volumes that went with it, but for the unnamed ones
    volumes: tuple[str, ...] = ()


class ContainerExited(Reply):
    container: Container
    exit_code: int
    #: what the Engine says of an end that was none of the container's own
    error: str = ""


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
CREATE = Contract(
    name="fleet.containers.create",
    summary="Make a container by its spec, and start it.",
    request=CreateContainer,
    reply=ContainerCreated,
    risk=Risk.EXECUTES,
    idempotent=False,
    on_restart=Restart.RECONCILE,
)
CHECK = Contract(
    name="fleet.containers.check",
    summary="Say what the host's policy says of a spec, and make nothing.",
    request=CheckContainer,
    reply=ContainerCheck,
    risk=Risk.READS,
    idempotent=True,
)
KILL = Contract(
    name="fleet.containers.kill",
    summary="Send a signal to a container's first process.",
    request=KillContainer,
    reply=ContainerState,
    risk=Risk.CHANGES,
    idempotent=False,
)
REMOVE = Contract(
    name="fleet.containers.remove",
    summary="Remove a container for good.",
    request=RemoveContainer,
    reply=ContainerRemoved,
    risk=Risk.DESTROYS,
    idempotent=False,
    on_restart=Restart.RECONCILE,
)
WAIT = Contract(
    name="fleet.containers.wait",
    summary="Wait until a container does not run, and tell its exit code.",
    request=OneContainer,
    reply=ContainerExited,
    risk=Risk.READS,
    idempotent=True,
    limit=timedelta(days=7),
    attached=True,
)
ALL = (LIST, INSPECT, START, STOP, RESTART, CREATE, CHECK, KILL, REMOVE, WAIT)
