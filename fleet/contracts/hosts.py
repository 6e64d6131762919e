"""Contracts about the host itself."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field

from fleet.contracts.contract import Contract, Reply, Request, Risk


class Availability(StrEnum):
    """Whether a host takes new work. What runs, runs on in any case."""

    #: takes what comes
    ACTIVE = "active"
    #: takes nothing; its queue waits for it
    PAUSED = "paused"
    #: takes nothing, and is to be pushed nothing either: it is about to be switched off
    DRAINING = "draining"


class Ping(Request):
    """Nothing, or a text that comes back."""

    echo: str = Field("", max_length=1024, description="text that the host sends back")


class Pong(Reply):
    host: str
    echo: str
    #: the host's clock, unix seconds
    time: float


class FactsRequest(Request):
    pass


class Facts(Reply):
    """What a host found out about itself. Facts, not labels: nothing is ever decided by them."""

    hostname: str
    #: where the host may be reached, as it believes itself
    address: str
    port: int
    fleet_version: str
    python_version: str
    #: pretty name of the operating system, such as "Debian GNU/Linux 12 (bookworm)"
    os: str
    kernel: str
    architecture: str
    cpus: int
    memory_bytes: int
    #: version of the Docker Engine; None while it does not answer
    docker_version: str | None = None
    #: whether commands and files are for the fleet's policy to say; False where the host's owner has switched them off
    shell: bool = True


#: Among what is kept as a host's facts: that it keeps to itself (`FLEET_UNLISTED`), and then nothing else is. It says
#: what cannot be observed of a host, and only makes those more patient who judge by its silence.
UNLISTED = "unlisted"


def is_unlisted(facts: Mapping[str, Any]) -> bool:
    """Say whether the host with these facts writes no heartbeats."""
    return facts.get(UNLISTED) is True


PING = Contract(
    name="fleet.host.ping",
    summary="Answer, to show that the host consumes its queue.",
    request=Ping,
    reply=Pong,
    risk=Risk.READS,
    idempotent=True,
)
FACTS = Contract(
    name="fleet.host.facts",
    summary="Report versions, processors, memory and address of the host.",
    request=FactsRequest,
    reply=Facts,
    risk=Risk.READS,
    idempotent=True,
)
ALL = (PING, FACTS)
