"""The heartbeat: what a host writes under its presence key, and what its silence means."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from fleet.contracts.hosts import Availability

#: The interval of heartbeats, before a jitter of ± 20 %.
HEARTBEAT_INTERVAL = timedelta(seconds=10)
#: How long a presence key lives without renewal: three heartbeats at their slowest.
PRESENCE_TTL = timedelta(seconds=35)
#: How long after the last heartbeat a host counts as offline.
OFFLINE_AFTER = timedelta(seconds=120)


class Presence(StrEnum):
    """What the registry says of a host now."""

    #: a heartbeat within 35 s
    ONLINE = "online"
    #: silent for 35 s to 120 s; not connected as far as a push is concerned, and nothing is cancelled for it
    STALE = "stale"
    #: silent for longer, signed off, or never seen
    OFFLINE = "offline"
    #: its worker writes no heartbeat, so nobody sees whether it is there; not connected as far as a push is concerned
    UNLISTED = "unlisted"


class Heartbeat(BaseModel):
    """What the presence key holds. Unknown fields are ignored: workers of other versions write it, too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    #: unix seconds by the broker's clock
    at: float = Field(allow_inf_nan=False)
    epoch: int
    version: str
    address: str
    port: int
    pid: int
    started_at: datetime
    #: seconds since the consumer loop last ticked; None before its first tick
    loop_age_seconds: float | None
    #: tasks that the pool holds at the moment
    in_hand: int
    #: messages waiting in the host's queue
    queue_length: int
    #: reports not yet handed to the broker
    outbox_length: int = 0
    #: runs that a crash interrupted and that have not ended since
    recovering: int = 0
    #: items that could not be parsed or were refused (`names.dead`)
    dead_letters: int = 0
    availability: Availability = Availability.ACTIVE
    #: whether the Docker Engine answered last; None while that is not known
    docker_reachable: bool | None
    #: local clock minus the broker's, in seconds
    clock_skew_seconds: float = 0.0


def presence_at(age: timedelta | None) -> Presence:
    """Say what the age of the last heartbeat means; None is a host that was never heard or has signed off."""
    if age is None or age > OFFLINE_AFTER:
        return Presence.OFFLINE
    return Presence.ONLINE if age <= PRESENCE_TTL else Presence.STALE
