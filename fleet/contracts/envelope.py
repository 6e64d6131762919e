"""The envelope: the `fleet` header of every task message, beside Celery's own headers."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

#: Key of the envelope in the message's headers.
HEADER = "fleet"
#: The version that this code writes, and the only one that it reads.
VERSION = 1


class Envelope(BaseModel):
    """Who asks what of which host, and until when. Unknown metadata passes through; unknown fields do not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: int = VERSION
    #: the one host that may carry the run out
    host: str
    #: principal that pushed
    submitted_by: str
    #: unix seconds
    submitted_at: float
    #: unix seconds by the broker's clock after which the run must not begin; None for no limit
    not_after: float | None = None
    description: str = Field("", max_length=4096)
    metadata: dict[str, Any] = {}
    #: id that the runs of one push share
    batch: str | None = None
