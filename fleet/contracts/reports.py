"""Reports: what hosts and principals tell the control plane, one JSON object each, in their own append-only list.

A host numbers its reports without gaps within an epoch (one worker session), so the control plane can prove that none
is missing. A principal reports `run.queued`, keyed by the run, and `run.cancel_requested`.
"""

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.contracts.envelope import (
    DEEPEST_METADATA,
    LONGEST_BACKOFF_SECONDS,
    LONGEST_LIMIT_SECONDS,
    LONGEST_WAY_SECONDS,
    MOST_RETRIES,
    is_deep,
)

#: The largest integer that every JSON reader gives back exactly (RFC 8259, section 6).
LARGEST = 2**53 - 1


class Kind(StrEnum):
    """Every kind of report. The word after the dot is a past participle: it has happened."""

    #: a principal pushed a message; data is `Queued`
    RUN_QUEUED = "run.queued"
    #: the message is in the host's journal; data: {}, of a governed contract {"verdict": `contracts.verdicts.Told`}
    RUN_ACCEPTED = "run.accepted"
    #: the host has parked the run until somebody else approves it; data: {"verdict": …, "digest": str,
    #: "approve_before": float}
    RUN_AWAITING_APPROVAL = "run.awaiting_approval"
    #: a principal's approval was checked and counts, and the run may begin; data: {"by": str, "reason": str,
    #: "digest": str, "run_before": float}
    RUN_APPROVED = "run.approved"
    #: a principal's answer about a run does not count; data: {"by": str, "reason": str, "detail": str}
    APPROVAL_REFUSED = "approval.refused"
    #: an attempt at a command has found the program that it is about to run; data: `contracts.verdicts.SessionStarted`
    SESSION_STARTED = "session.started"
    #: an attempt at a governed run has ended, however it did; data: `contracts.verdicts.SessionEnded`
    SESSION_ENDED = "session.ended"
    #: the run was claimed and begins; data: {}
    RUN_STARTED = "run.started"
    #: the worker ended while it ran, and a new session takes it up; data: {"how": one of `contract.Restart`, or
    #: "spool" where the run's supervisor outlived the worker}. The attempt is the one that comes, or goes on
    RUN_RECOVERING = "run.recovering"
    #: an attempt failed and another follows (its number is the report's); data: {"kind": str, "message": str,
    #: "not_before": float, "duration_seconds": float}
    RUN_RETRYING = "run.retrying"
    #: the host gives a run back that it had begun; the control plane sends it again, and the report's attempt
    #: is the one to come; data: {}
    RUN_HANDED_BACK = "run.handed_back"
    #: data: {"step": str, "percent": float | None}
    RUN_PROGRESSED = "run.progressed"
    #: data: {"reply": {...}, "duration_seconds": float}
    RUN_SUCCEEDED = "run.succeeded"
    #: data: {"kind": str, "message": str, "duration_seconds": float}
    RUN_FAILED = "run.failed"
    #: the host refused the message, or somebody its approval, and it never ran; data: {"reason": str, "detail": str},
    #: of a governed contract also {"verdict": …}, and {"by": str} where somebody denied it
    RUN_REJECTED = "run.rejected"
    #: its time was over before it began, or before the next attempt at it did, of which the report has the number;
    #: data: {"expired_at": float}, of a governed contract that came too late to be judged also {"verdict": …}
    RUN_EXPIRED = "run.expired"
    #: ended because somebody asked for it; data: {"by": str, "reason": str, "begun": bool}
    RUN_CANCELLED = "run.cancelled"
    #: it began, and nobody can say whether it had its effect; it is not begun again; data: {"message": str}
    RUN_UNKNOWN = "run.unknown"
    #: a principal asks for the end of a run, of its host as well (`contracts.control`); data: {"reason": str}
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    #: an item of the queue that is no task message; data: {"reason": str, "detail": str, "size": int}
    MESSAGE_REFUSED = "message.refused"
    #: a worker session began; data: {"facts": {...}, "version": str, "journal": str, "unfinished": [run id, ...]}.
    #: `journal` identifies the journal file; `unfinished` are all runs in it that have not ended, and None where they
    #: are more than a report holds. A host that keeps to itself has no facts to tell, and "unlisted": true
    HOST_REGISTERED = "host.registered"
    #: the host goes by this version of the fleet's policy from now on; data: {"version": int}
    HOST_POLICY_TAKEN = "host.policy_taken"
    #: a worker session ended cleanly; data: {}
    HOST_DEREGISTERED = "host.deregistered"
    #: the host obeys a change of its availability; data: {"availability": one of `contracts.hosts.Availability`}
    HOST_AVAILABILITY_CHANGED = "host.availability_changed"
    #: a newer session of the same host has taken over, and this one ends; data: {"newer": int}
    HOST_FENCED = "host.fenced"
    #: the host has made the key and the broker password to come; data: {"key": str, "broker_hash": str}
    HOST_KEY_OFFERED = "host.key_offered"
    #: the host goes by a new credential from now on; data: {"key": str}, the public key in it
    HOST_CREDENTIAL_TAKEN = "host.credential_taken"
    #: a run needs the secrets that its message names; data is `contracts.secrets.SecretsWanted`
    SECRETS_WANTED = "secrets.wanted"
    #: all containers of the host; data: {"containers": [Container, ...]}; replaces what was known
    INVENTORY_SYNCED = "inventory.synced"
    #: data: {"changed": [Container, ...], "removed": [docker id, ...]} since the last inventory report
    INVENTORY_CHANGED = "inventory.changed"


class Report(BaseModel):
    """One report. Unknown fields are kept out of the way, not refused: senders of other versions report, too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1
    #: `names.host_sender` or `names.principal_sender`
    sender: str
    #: worker session of the host; 0 for a principal
    epoch: int = Field(0, ge=0, le=LARGEST)
    #: 1, 2, 3 … within the epoch; 0 for a principal
    seq: int = Field(0, ge=0, le=LARGEST)
    kind: Kind
    run: str | None = None
    attempt: int | None = Field(None, ge=1, le=1_000_000)
    #: unix seconds by the broker's clock as the sender knows it
    at: float
    data: dict[str, Any] = {}


class Queued(BaseModel):
    """Data of `run.queued`: the whole request, with the very message that lies in the host's queue."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    host: str
    task: str
    arguments: dict[str, Any]
    description: str = ""
    metadata: dict[str, Any] = {}
    submitted_by: str
    #: unix seconds
    submitted_at: float
    #: unix seconds after which the host must not begin the run; None for no limit
    not_after: float | None = None
    #: unix seconds before which the host does not begin it; None for at once
    not_before: float | None = None
    #: seconds that one attempt may take at most; None in what older senders wrote
    limit_seconds: float | None = Field(None, ge=0, le=LONGEST_LIMIT_SECONDS)
    #: seconds after which an attempt is asked to stop; None for no such warning
    soft_limit_seconds: float | None = Field(None, ge=0, le=LONGEST_LIMIT_SECONDS)
    #: attempts that may follow a failed one
    max_retries: int = Field(0, ge=0, le=MOST_RETRIES)
    #: seconds before the first of them, and between two at most; None in what older senders wrote
    backoff_seconds: float | None = Field(None, ge=0, le=LONGEST_BACKOFF_SECONDS)
    backoff_max_seconds: float | None = Field(None, ge=0, le=LONGEST_BACKOFF_SECONDS)
    #: the run that this one was made from by `fleet task retry`
    retry_of: str | None = Field(None, max_length=100)
    #: the runs of one push share it; None for a single run
    batch: str | None = Field(None, max_length=36)
    #: the queue item, byte for byte (it is JSON, hence text)
    message: str

    @model_validator(mode="after")
    def _is_on_its_way_for_a_while(self) -> Self:
        """Hold it to what hosts hold messages to; moments are reckoned with for as long as the run has not ended."""
        if self.not_before is not None and self.not_before - self.submitted_at > LONGEST_WAY_SECONDS:
            raise ValueError("not_before is too late")
        if is_deep(self.metadata, DEEPEST_METADATA):
            raise ValueError(f"metadata is nested more than {DEEPEST_METADATA} levels deep")
        return self
