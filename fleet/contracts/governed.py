"""Governed runs as hosts report them: the data of the reports that say how a request was judged and answered.

What does not fit is no report (`workers.control.reading`). Fields that are not known here are passed over: hosts of
other versions report, too.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fleet import clock
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import SessionEnded, SessionStarted, Told


def _on_the_calendar(value: float) -> float:
    try:
        clock.from_unix(value)
    except (ValueError, OverflowError, OSError) as exc:
        raise ValueError("a moment beyond the calendar") from exc
    return value


#: Unix seconds by the broker's clock.
_Moment = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_on_the_calendar)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Principal = Annotated[str, Field(min_length=1, max_length=63)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Accepted(_Said):
    """Data of `run.accepted`."""

    #: of a governed contract
    verdict: Told | None = None


class Waiting(_Said):
    """Data of `run.awaiting_approval`."""

    verdict: Told
    #: `contracts.approvals.digest` of what the host has parked
    digest: _Digest
    approve_before: _Moment


class Approved(_Said):
    """Data of `run.approved`."""

    by: _Principal
    reason: str = Field("", max_length=1024)
    digest: _Digest
    run_before: _Moment


class Rejected(_Said):
    """Data of `run.rejected`."""

    reason: str = ""
    detail: str = ""
    verdict: Told | None = None
    #: who denied its approval
    by: _Principal | None = None


class Expired(_Said):
    """Data of `run.expired`."""

    #: of a governed contract, where it came too late to be judged
    verdict: Told | None = None


class Started(SessionStarted):
    """Data of `session.started`."""


class Ended(SessionEnded):
    """Data of `session.ended`."""

    started_at: _Moment


#: What hosts say of a governed run.
Said = Accepted | Waiting | Approved | Rejected | Expired | Started | Ended


#: What tells of begin and end, of whichever contract a run is.
_OF_ANY = frozenset(
    {Kind.RUN_STARTED, Kind.RUN_FAILED, Kind.RUN_EXPIRED, Kind.RUN_CANCELLED, Kind.RUN_UNKNOWN, Kind.RUN_REJECTED}
)
_JUST_ACCEPTED = Accepted()


def is_told_by(kind: Kind, said: object) -> bool:
    """Say whether a report with that checked data may change an approval or a session; most of other runs do not."""
    return kind in _OF_ANY or (isinstance(said, Said) and said != _JUST_ACCEPTED)
