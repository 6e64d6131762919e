"""Parked requests: what waits for an answer, read from the very message that its principal signed.

Whoever answers signs for what they were shown. So it is read from the message, and that is checked by the fleet's keys:
neither the database nor the broker can have somebody sign for something else.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from fleet import errors, runs
from fleet.contracts import approvals
from fleet.contracts.envelope import HEADER, Envelope
from fleet.models import Approval, ApprovalState
from fleet.security import signing
from fleet.security.trust import Trust


@dataclass(frozen=True)
class Parked:
    """A request that waits for an answer, as its principal signed it."""

    run_id: str
    host: str
    principal: str
    level: str
    task: str
    arguments: dict[str, Any]
    description: str
    #: of one attempt; None for the contract's own
    limit_seconds: float | None
    #: how often it is begun again after it failed
    max_retries: int
    #: unix seconds before which the run does not begin; 0 for at once
    not_before: float
    #: of the message
    digest: str


@dataclass(frozen=True)
class Waiting:
    """A run that waits for an answer, with its message as the database has it: nobody has checked it yet."""

    run_id: str
    item: str

    def checked(self, trust: Trust) -> Parked:
        """Return the request; raise `errors.NotTrusted` where the database has something else than what was signed."""
        message = json.loads(self.item)
        headers = message["headers"]
        form = (message.get("content-type"), message.get("content-encoding"))
        principal = signing.check_message(headers, message["body"], form=form, trust=trust)
        envelope = Envelope.model_validate(headers[HEADER])
        if headers["id"] != self.run_id:
            raise errors.NotTrusted(f"what is on record for {self.run_id} is the message of another run")
        return Parked(
            run_id=self.run_id,
            host=envelope.host,
            principal=principal.name,
            level=principal.level.value,
            task=headers["task"],
            arguments=approvals.arguments(self.item),
            description=envelope.description,
            limit_seconds=envelope.limits.hard_seconds if envelope.limits else None,
            max_retries=envelope.retry.max_retries,
            not_before=envelope.not_before or 0.0,
            digest=approvals.digest(self.item),
        )


def waiting(session: Session, run_id: str) -> Waiting:
    """Return a run that waits for an answer, by its id or the end of it.

    Raises `errors.InvalidValue`, `errors.NotFound`, `errors.TaskExpired` for one whose time is over, and
    `errors.Refused` for any other that waits for none.
    """
    row = runs.named(session, run_id)
    known = session.get(Approval, row.id)
    if known is not None and known.state == ApprovalState.EXPIRED:
        raise errors.TaskExpired(
            f"{row.id} is {row.state}: nobody answered in time, or it did not begin in time",
            remedy="whoever wants it still has to push it again",
        )
    # not by the state of the run: what asks anew once it was accepted stays so
    waits = known is not None and known.state == ApprovalState.PENDING
    if not waits or row.message is None:
        raise errors.Refused(f"{row.id} is {row.state}", remedy="`fleet approval list` shows what waits for approval")
    return Waiting(run_id=row.id, item=row.message)
