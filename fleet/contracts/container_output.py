"""Contracts about what containers say and use: their logs and statistics, once or for as long as somebody follows.

What they tell goes into the run's output (`fleet.contracts.output`), logs as entries of the kind "text", statistics as
"usage" (`UsageEntry`).
"""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from fleet.contracts.containers import ContainerRef
from fleet.contracts.contract import Contract, Reply, Request, Restart, Risk

#: Lines that are told where nothing else is said.
DEFAULT_TAIL = 1000
#: Containers of which statistics are told in one entry, so that it is not too large.
MOST_IN_ENTRY = 16


class Logs(Request):
    container: ContainerRef = Field(description="name or id of the container")
    follow: bool = Field(default=False, description="go on with what it says from now on, until it stops")
    tail: Annotated[int, Field(ge=0, le=10_000_000)] | Literal["all"] = Field(
        DEFAULT_TAIL, description='so many lines of what there is, or "all"'
    )
    since: AwareDatetime | None = Field(None, description="only what was said since then, by the host's clock")
    last_seconds: float | None = Field(None, gt=0, le=10**9, description="only what was said within so many seconds")
    timestamps: bool = Field(default=False, description="with the time before each line")
    stdout: bool = Field(default=True, description="what it says on its standard output")
    stderr: bool = Field(default=True, description="what it says on its standard error")

    @model_validator(mode="after")
    def _is_something(self) -> Self:
        if not (self.stdout or self.stderr):
            raise ValueError("stdout and stderr are both left out: nothing is left to tell")
        if self.since is not None and self.last_seconds is not None:
            raise ValueError("since and last_seconds: use one of the two")
        return self


class LogsEnd(Reply):
    """Why the telling ended, and how much there was."""

    #: lines that the host has told, or dropped because they came too fast
    lines: int
    #: "read": that was all; "stopped": the container has; "unfollowed": nobody has listened for half a minute
    ended: Literal["read", "stopped", "unfollowed"]


class Stats(Request):
    containers: tuple[ContainerRef, ...] = Field((), max_length=1000, description="names or ids; none for all that run")
    follow: bool = Field(default=False, description="tell again every two seconds, for as long as somebody listens")


class Usage(Reply):
    """What one container uses. A number is None where the host's kernel does not tell it."""

    docker_id: str
    name: str
    #: of one processor: 200 is two of them, busy all the time
    cpu_percent: float | None = None
    #: without what the kernel can drop at any time
    memory_bytes: int | None = None
    #: the container's limit, or the machine's memory
    memory_limit_bytes: int | None = None
    #: since the container was started
    network_in_bytes: int | None = None
    network_out_bytes: int | None = None
    block_read_bytes: int | None = None
    block_written_bytes: int | None = None
    pids: int | None = None


class UsageEntry(Reply):
    """One part of a look at all containers, as an entry of the output."""

    #: 1, 2, 3 … the parts of one look have the same
    look: int
    #: whether this is the last part of it
    last: bool
    usage: tuple[Usage, ...]


class StatsEnd(Reply):
    """The latest look."""

    usage: tuple[Usage, ...]
    #: "read" of a single look; "unfollowed": nobody has listened for half a minute; "stopped": nothing runs any more
    ended: Literal["read", "stopped", "unfollowed"] = "read"


LOGS = Contract(
    name="fleet.containers.logs",
    summary="Tell what a container has said, and go on with it if asked to.",
    request=Logs,
    reply=LogsEnd,
    risk=Risk.READS,
    idempotent=True,
    # Told from the beginning once more, its reader would get every line twice.
    on_restart=Restart.FAIL,
    limit=timedelta(days=7),
    attached=True,
)
STATS = Contract(
    name="fleet.containers.stats",
    summary="Tell what containers use of processors, memory, network and disks.",
    request=Stats,
    reply=StatsEnd,
    risk=Risk.READS,
    idempotent=True,
    # It is about now, and whoever looks at it sees that it has ended.
    on_restart=Restart.FAIL,
    limit=timedelta(days=7),
    attached=True,
)
ALL = (LOGS, STATS)
