"""A claim: the right to carry out one attempt at a run, as the journal gives it to one caller, once.

It holds all that this takes (the message, how the policy judged it, somebody's approval), so that nobody has to ask the
journal again.
"""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet.contracts.envelope import Envelope
from fleet.contracts.verdicts import Told

#: Columns of the journal of which a claim is made.
COLUMNS = "run_id, attempt, task, envelope, item, started_at, verdict, approval, not_after"


@dataclass(frozen=True)
class Claim:
    """The right to carry out one attempt at a run."""

    run_id: str
    attempt: int
    task: str
    envelope: Envelope
    #: the queue item
    item: str
    #: unix seconds by the broker's clock
    started_at: float = 0.0
    #: of a run that the policy was asked about
    verdict: Told | None = None
    #: of one that somebody approved: the word, as the approver signed it (`security.signing.SignedControl`)
    approval: str = ""
    #: of such a one: by when it has to begin, unix seconds by the broker's clock
    begin_before: float | None = None

    @property
    def about(self) -> dict[str, str]:
        """What a line in the log about it says of it."""
        return {"run": self.run_id, "task": self.task, "principal": self.envelope.submitted_by}

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments as they were pushed; the guard has checked their form."""
        _args, arguments, _embed = json.loads(json.loads(self.item)["body"])
        return dict(arguments)


def of_row(row: tuple[Any, ...]) -> Claim:
    """Return the claim of a row with the columns `COLUMNS`."""
    run_id, attempt, task, envelope, item, started_at, verdict, approval, not_after = row
    return Claim(
        run_id,
        attempt,
        task,
        read_envelope(envelope),
        item,
        started_at,
        Told.model_validate_json(verdict) if verdict else None,
        approval or "",
        not_after if approval else None,
    )


def read_envelope(text: str) -> Envelope:
    """Return an envelope as the journal keeps it.

    Without its metadata where that cannot be read any more: it was written by a worker that took more than it could
    read, and a journal that cannot be read keeps every session from beginning.
    """
    try:
        return Envelope.model_validate_json(text)
    except ValidationError:
        return Envelope.model_validate({**json.loads(text), "metadata": {}})
