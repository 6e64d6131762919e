"""Answers: what a host says of an approver's word, and what that comes to for whoever gave it.

Several may answer for one run at once, and all of them hear what the host says of each. A refusal is its addressee's
alone; that the run may begin, or never does, is true for all.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from fleet import errors

if TYPE_CHECKING:
    from fleet.parked import Parked

Says = Literal["approve", "deny"]

_REFUSED = "approval.refused"
#: What a host says of an answer, or of the run instead of it.
_SAID = frozenset({"run.approved", "run.rejected", _REFUSED, "run.expired", "run.cancelled", "run.unknown"})


def concerns(event: str, data: Mapping[str, Any], approver: str) -> bool:
    """Say whether an audit event about a run says what has come of that principal's answer."""
    return event in _SAID and (event != _REFUSED or data.get("by") == approver)


def require_taken(event: str, data: Mapping[str, Any], asked: "Parked", says: Says) -> None:
    """Raise where an event that `concerns` the approver says anything else than what the approver did.

    Somebody else's word of the same meaning is as good. Raises `errors.TaskRejected` with the host's reason for not
    taking the answer, `errors.TaskExpired`, and `errors.Refused` where the run waits no more.
    """
    match event:
        case "run.approved" if says == "approve":
            return
        case "run.rejected" if says == "deny" and data.get("by"):
            return
        case "approval.refused":
            raise errors.TaskRejected(str(data.get("reason")), str(data.get("detail", "")))
        case "run.rejected":  # which is about the request, and no fault of whoever answers
            why = data.get("detail") or data.get("reason")
            raise errors.Refused(f"{asked.run_id} waits no more: {why}", remedy="`fleet task show` says more")
        case "run.expired":
            raise errors.TaskExpired(f"{asked.run_id} has expired")
        case other:
            raise errors.Refused(
                f"{asked.run_id} waits no more: {other}", remedy="`fleet task show` says what became of it"
            )
