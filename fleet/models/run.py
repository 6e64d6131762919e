"""Runs: one request on one host, and each try at it. This is the ledger."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Field, SQLModel

from fleet.models.columns import Big, Json, UtcDateTime


class RunState(StrEnum):
    """Where a run is. States only move forward; `MOVES` in `fleet.runs` has the legal moves."""

    #: pushed; the host has not taken it yet
    QUEUED = "queued"
    #: in the host's journal, until somebody else approves it
    AWAITING_APPROVAL = "awaiting_approval"
    #: in the host's journal
    ACCEPTED = "accepted"
    #: being carried out
    RUNNING = "running"
    #: the worker ended while it ran; a new session finds out, or runs it again
    RECOVERING = "recovering"
    #: carried out, with a reply
    SUCCEEDED = "succeeded"
    #: carried out, with an error
    FAILED = "failed"
    #: refused by the host; it never ran
    REJECTED = "rejected"
    #: its time was over before it began: it never ran; or before another attempt began, which an approval was for
    EXPIRED = "expired"
    #: ended, or never begun, because somebody asked for it
    CANCELLED = "cancelled"
    #: begun, and nobody can say what became of it; a late report of its host may still settle it
    UNKNOWN = "unknown"


class Run(SQLModel, table=True):
    __tablename__ = "run"

    #: `<host>:<uuid7>`
    id: str = Field(primary_key=True, max_length=100)
    host_id: str = Field(index=True, max_length=63)
    task: str = Field(index=True)
    arguments: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    state: str = Field(index=True, max_length=20)
    description: str = ""
    #: `metadata` of the push; the attribute has another name because SQLAlchemy keeps that one
    meta: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    submitted_by: str = ""
    submitted_at: datetime = Field(index=True, sa_type=UtcDateTime)
    #: the newest attempt that a host spoke of
    attempt: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    #: accepted by the host
    assigned_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    not_after: datetime | None = Field(default=None, sa_type=UtcDateTime)
    not_before: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: how long one attempt may take; None where its `run.queued` has not come
    limit_seconds: float | None = None
    max_retries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    #: the run that this one repeats at somebody's request
    retry_of: str | None = Field(default=None, max_length=100)
    batch: str | None = Field(default=None, index=True, max_length=36)
    cancel_requested_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    cancel_requested_by: str | None = Field(default=None, max_length=63)
    #: when the control plane sent the message again last, because no host had it
    sent_again_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: latest progress: {"step": …, "percent": …}
    progress: dict[str, Any] | None = Field(default=None, sa_type=Json)
    #: the contract's reply; None unless succeeded
    reply: dict[str, Any] | None = Field(default=None, sa_type=Json)
    #: {"kind": …, "message": …}; None unless failed, rejected or expired
    error: dict[str, Any] | None = Field(default=None, sa_type=Json)
    #: the queue item as it was pushed, to send again; None once the run has ended
    message: str | None = None


class Attempt(SQLModel, table=True):
    """One try at a run on its host."""

    __tablename__ = "attempt"

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=100)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    state: str = Field(max_length=20)
    #: worker session of the host
    epoch: int = Field(default=0, sa_type=Big)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: by the host's monotonic clock
    duration_seconds: float | None = None
