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
    #: when that was decided, unix seconds; what was decided before what the host obeys is not obeyed any more
    decided_at: float = 0.0


class TrustUpdated(_Message):
    """The fleet's keys, or whose credentials count, have changed."""

    kind: Literal["trust.updated"] = "trust.updated"
    #: see `fleet.security.trust.SignedStatement`
    statement: str


class CredentialIssued(_Message):
    """The host has a new credential: its labels have changed, or its key."""

    kind: Literal["credential.issued"] = "credential.issued"
    credential: str


class KeyRotationRequested(_Message):
    """Make a new key and a new password of the broker user, and offer them (`host.key_offered`)."""

    kind: Literal["key.rotation_requested"] = "key.rotation_requested"


class MembershipRevoked(_Message):
    """The host does not belong to the fleet any more: end what runs, and take nothing."""

    kind: Literal["membership.revoked"] = "membership.revoked"
    by: str


class SecretsIssued(_Message):
    """The secrets that a run wants, or why it does not get them."""

    kind: Literal["secrets.issued"] = "secrets.issued"
    run: str
    #: the key that they are sealed to, as the host showed it
    seal_to: str
    #: JWE of a JSON object, name → value in base64; empty where they are refused
    sealed: str = ""
    #: one of `unknown_secret`, `not_permitted`, `not_trusted`
    refused: str = ""
    detail: str = Field("", max_length=1024)


class PolicyUpdated(_Message):
    """The fleet's policy has changed."""

    kind: Literal["policy.updated"] = "policy.updated"
    #: see `fleet.policy.statement`
    statement: str


class _Decided(_Message):
    """Somebody's answer about a run that waits for approval. Only a principal can say it, never the fleet."""

    run: str
    #: `contracts.approvals.digest` of the request as the approver saw it
    digest: str = Field(max_length=64)
    #: principal that answers
    by: str
    reason: str = Field("", max_length=1024)


class ApproveRun(_Decided):
    """The run may begin, once, until `run_before`."""

    kind: Literal["run.approve"] = "run.approve"
    #: unix seconds by the broker's clock; the run must begin before
    run_before: float = Field(allow_inf_nan=False)


class DenyRun(_Decided):
    """The run never begins."""

    kind: Literal["run.deny"] = "run.deny"


ControlMessage = Annotated[
    ReportsAcknowledged
    | ReportsMissing
    | InventoryRequested
    | CancelRun
    | SetAvailability
    | TrustUpdated
    | CredentialIssued
    | KeyRotationRequested
    | MembershipRevoked
    | SecretsIssued
    | PolicyUpdated
    | ApproveRun
    | DenyRun,
    Field(discriminator="kind"),
]
READER: TypeAdapter[ControlMessage] = TypeAdapter(ControlMessage)
