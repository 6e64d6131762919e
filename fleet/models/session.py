"""Shell sessions: every command and file operation that was asked for, and what came of it."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from fleet.models.columns import Big, Json, UtcDateTime


class ShellSession(SQLModel, table=True):
    __tablename__ = "shell_session"

    #: a session is one run
    run_id: str = Field(primary_key=True, max_length=100)
    host_id: str = Field(index=True, max_length=63)
    principal: str = Field(index=True, max_length=63)
    level: str = Field(max_length=16)
    task: str
    risk: str = Field(max_length=16)
    #: known secrets are masked; of a file its operation and path
    argv: list[str] = Field(default_factory=list, sa_type=Json)
    cwd: str | None = None
    #: `contracts.verdicts.RunAs` of a command that waits, or has begun
    run_as: dict[str, Any] | None = Field(default=None, sa_type=Json)
    #: allow, ask or deny
    decision: str = Field(max_length=8)
    #: a word for programs, and the rule for people
    reason: str = Field(max_length=64)
    rule: str = ""
    #: version of the fleet's policy
    policy: int = 0
    #: who approved it; None where nobody had to
    approved_by: str | None = Field(default=None, max_length=63)
    asked_at: datetime = Field(index=True, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    duration_seconds: float | None = None
    #: the last that has ended; one that was tried again is kept in `earlier`, as the columns from here on said of it
    attempt: int = 1
    earlier: list[dict[str, Any]] = Field(default_factory=list, sa_type=Json)
    #: how that attempt ended (`contracts.verdicts.SessionEnded`), or "rejected", "expired", "cancelled" where it
    #: never began; None while nothing has ended
    outcome: str | None = Field(default=None, max_length=16)
    exit_code: int | None = None
    detail: str = ""
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = Field(default=0, sa_type=Big)
    stderr_bytes: int = Field(default=0, sa_type=Big)
    stdout_sha256: str = Field(default="", max_length=64)
    stderr_sha256: str = Field(default="", max_length=64)
    truncated: bool = False
