"""Control messages: what is said to the worker itself, on `fleet:h:X:ctl`, past everything that waits in its queue.

Each may come twice or late, and does no harm then. Unknown kinds are dropped, because newer senders say more.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fleet.contracts.hosts import Availability


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1


class ReportsAcknowledged(_Message):
    """The control plane has on record what the session `epoch` reported up to `seq`."""

    kind: Literal["reports.acknowledged"] = "reports.acknowledged"
    epoch: int
    seq: int


class ReportsMissing(_Message):
    """Reports of the session `epoch` from `seq` on have not come, or only those after them: send them again."""

    kind: Literal["reports.missing"] = "reports.missing"
    epoch: int
    seq: int


class InventoryRequested(_Message):
    """Report all containers now."""

    kind: Literal["inventory.requested"] = "inventory.requested"


class CancelRun(_Message):
    """End this run, or never begin it, also where its message has not come yet."""

    kind: Literal["run.cancel"] = "run.cancel"
    run: str
    #: principal that asks
    by: str
    reason: str = Field("", max_length=1024)


class SetAvailability(_Message):
    """Take new work or not, until the next such message; a restart does not change it."""

    kind: Literal["host.availability"] = "host.availability"
    availability: Availability
    #: draining: what still runs then is cancelled, unix seconds by the broker's clock; None to let it finish
    deadline: float | None = None
    by: str


ControlMessage = Annotated[
    ReportsAcknowledged | ReportsMissing | InventoryRequested | CancelRun | SetAvailability, Field(discriminator="kind")
]
READER: TypeAdapter[ControlMessage] = TypeAdapter(ControlMessage)
