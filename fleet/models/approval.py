"""Approvals: runs that waited, or wait, for somebody else's word."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from fleet.models.columns import UtcDateTime


class ApprovalState(StrEnum):
    #: nobody has answered yet
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    #: nobody answered in time, or the run did not begin in time afterwards
    EXPIRED = "expired"
    #: the run was cancelled while it waited
    CANCELLED = "cancelled"
    #: the request itself was refused in the end (the policy or the principal has changed)
    REFUSED = "refused"


class Approval(SQLModel, table=True):
    __tablename__ = "approval"

    #: the run that waits; its request is in its row
    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=100)
    host_id: str = Field(index=True, max_length=63)
    #: who asked
    principal: str = Field(index=True, max_length=63)
    level: str = Field(max_length=16)
    risk: str = Field(max_length=16)
    #: the rule by which it waits
    rule: str
    #: `contracts.approvals.digest`, as the host says
    digest: str = Field(max_length=64)
    state: str = Field(index=True, max_length=16)
    asked_at: datetime = Field(index=True, sa_type=UtcDateTime)
    approve_before: datetime = Field(sa_type=UtcDateTime)
    run_before: datetime | None = Field(default=None, sa_type=UtcDateTime)
    decided_by: str | None = Field(default=None, max_length=63)
    decided_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: of whoever decided
    reason: str = ""
