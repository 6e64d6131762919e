"""The envelope: the `fleet` header of every task message, beside Celery's own headers."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

#: Key of the envelope in the message's headers.
HEADER = "fleet"
#: The version that this code writes, and the only one that it reads.
VERSION = 2
#: A week: what takes longer than that is no task.
LONGEST_LIMIT_SECONDS = 7 * 86_400.0
#: How long a message may be on its way at most, from its submission or, where it has one, its `not_before`. Journals
#: remember runs for longer (`workers.host.pruning`), so that a message is never taken for a new one.
LONGEST_WAY_SECONDS = 30 * 86_400.0
#: Between two attempts.
LONGEST_BACKOFF_SECONDS = 86_400.0
MOST_RETRIES = 100
#: How deep metadata may be nested: JSON is written by libraries that take more than others can read.
DEEPEST_METADATA = 64

# A number that is none compares with nothing, so no bound of anybody's would hold it.
_CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Limits(BaseModel):
    """How long one attempt may take, in seconds by the host's monotonic clock."""

    model_config = _CONFIG

    #: after it the task is asked to stop (a `errors.SoftTimeLimit` in user code); None for no such warning
    soft_seconds: float | None = Field(None, gt=0, le=LONGEST_LIMIT_SECONDS)
    #: after it the attempt is ended
    hard_seconds: float = Field(gt=0, le=LONGEST_LIMIT_SECONDS)


class Retry(BaseModel):
    """Whether a failed attempt is followed by another, and when: backoff × 2ⁿ seconds later, with a cap and jitter."""

    model_config = _CONFIG

    max_retries: int = Field(0, ge=0, le=MOST_RETRIES)
    backoff_seconds: float = Field(1.0, ge=0, le=LONGEST_BACKOFF_SECONDS)
    backoff_max_seconds: float = Field(600.0, ge=0, le=LONGEST_BACKOFF_SECONDS)


class Envelope(BaseModel):
    """Who asks what of which host, and until when. Unknown metadata passes through; unknown fields do not."""

    model_config = _CONFIG

    v: int = VERSION
    #: the one host that may carry the run out
    host: str
    #: its public key, so that no other machine of that name takes it for its own
    host_key: str = Field(max_length=64)
    #: principal that pushed
    submitted_by: str
    #: unix seconds
    submitted_at: float
    #: unix seconds by the broker's clock after which the run must not begin; None for no limit
    not_after: float | None = None
    #: unix seconds by the broker's clock before which the run does not begin; it waits in the host's journal
    not_before: float | None = None
    #: None for the contract's own
    limits: Limits | None = None
    retry: Retry = Retry()
    #: the run that this one repeats at somebody's request
    retry_of: str | None = Field(None, max_length=100)
    description: str = Field("", max_length=4096)
    metadata: dict[str, Any] = {}
    #: id that the runs of one push share
    batch: str | None = None


def is_deep(value: object, most: int) -> bool:
    """Say whether JSON is nested more than so many levels deep."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else None
    return inner is not None and (most == 0 or any(is_deep(each, most - 1) for each in inner))
