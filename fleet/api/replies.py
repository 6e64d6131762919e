"""Replies: what is answered, as models for the documentation. The records are those of `-o json` (`fleet.shapes`)."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fleet.api import examples
from fleet.records import Record


def _such_as(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Host(Reply):
    model_config = _such_as(examples.HOST)

    id: str
    presence: str
    membership: str
    availability: str
    labels: dict[str, str]
    suspect: str | None
    facts: dict[str, Any]
    enrolled_at: datetime
    registered_at: datetime | None
    last_seen_at: datetime | None
    signed_off_at: datetime | None
    inventory_at: datetime | None
    heartbeat: dict[str, Any] | None


class Container(Reply):
    model_config = _such_as(examples.CONTAINER)

    host: str
    docker_id: str
    name: str
    image: str
    state: str
    status: str
    health: str | None
    ports: list[dict[str, Any]]
    labels: dict[str, str]
    managed: bool
    created: datetime
    started: datetime | None


class Run(Reply):
    model_config = _such_as(examples.RUN)

    id: str
    host: str
    task: str
    state: str
    description: str
    submitted_by: str
    submitted_at: datetime
    assigned_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    not_after: datetime | None
    not_before: datetime | None
    attempt: int
    max_retries: int
    limit_seconds: float | None
    retry_of: str | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    sent_again_at: datetime | None
    batch: str | None
    progress: dict[str, Any] | None
    arguments: dict[str, Any]
    metadata: dict[str, Any]
    reply: dict[str, Any] | None
    error: dict[str, Any] | None


class Attempt(Reply):
    number: int
    state: str
    epoch: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None


class RunWithAttempts(Run):
    model_config = _such_as(examples.RUN_WITH_ATTEMPTS)

    attempts: list[Attempt]


class RunAs(Reply):
    program: str
    argv: list[str]
    cwd: str
    env: list[str]


class Approval(Reply):
    model_config = _such_as(examples.APPROVAL)

    id: str
    host: str
    state: str
    principal: str
    level: str
    risk: str
    rule: str
    task: str
    arguments: dict[str, Any]
    #: what its host carries out for a command, once somebody approves
    run_as: RunAs | None
    limit_seconds: float | None
    max_retries: int
    description: str
    exact: bool
    digest: str
    asked_at: datetime
    approve_before: datetime
    run_before: datetime | None
    decided_by: str | None
    decided_at: datetime | None
    reason: str
    run_state: str


class ApprovalWithRecord(Approval):
    model_config = _such_as(examples.APPROVAL_WITH_RECORD)

    #: what became of all that the principal has asked for
    record: Record


class Principal(Reply):
    model_config = _such_as(examples.PRINCIPAL)

    id: str
    level: str
    selectors: dict[str, str]
    approves: list[str]
    state: str
    expires_at: datetime
    created_at: datetime
    created_by: str


class PrincipalWithRecord(Principal):
    model_config = _such_as(examples.PRINCIPAL_WITH_RECORD)

    record: Record


class BearerToken(Reply):
    model_config = _such_as(examples.BEARER_TOKEN)

    id: str
    principal: str
    scope: str
    state: str
    description: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None


class NewPrincipal(Principal):
    model_config = _such_as(examples.NEW_PRINCIPAL)

    #: its file: the only copy of its key. Keep it, mode 0600, as FLEET_PRINCIPAL_FILE
    file: dict[str, Any]
    #: a bearer token of scope use, by which it may speak to this API
    bearer_token: str


class Me(Principal):
    model_config = _such_as(examples.ME)

    record: Record
    scope: str
    token_id: str
    token_expires_at: datetime


class Token(Reply):
    model_config = _such_as(examples.TOKEN)

    id: str
    state: str
    host: str | None
    labels: dict[str, str]
    uses_left: int
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class NewToken(Token):
    model_config = _such_as(examples.NEW_TOKEN)

    #: shown this once
    token: str


class AuditEvent(Reply):
    model_config = _such_as(examples.AUDIT_EVENT)

    v: int
    id: int
    event: str
    actor: str
    host: str | None
    run: str | None
    occurred_at: str
    recorded_at: str
    epoch: int
    seq: int
    data: dict[str, Any]
    hash: str


class ShellSession(Reply):
    model_config = _such_as(examples.SHELL_SESSION)

    id: str
    host: str
    principal: str
    level: str
    task: str
    argv: list[str]
    cwd: str | None
    #: what is carried out: of a command that waits, or has begun
    run_as: RunAs | None
    risk: str
    decision: str
    reason: str
    rule: str
    policy: int
    approved_by: str | None
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    outcome: str | None
    exit_code: int | None
    detail: str
    stdout: str
    stderr: str
    stdout_bytes: int
    stderr_bytes: int
    stdout_sha256: str
    stderr_sha256: str
    truncated: bool
    #: the last that has ended
    attempt: int
    #: those before it, as the fields from `started_at` on said of each
    earlier: list[dict[str, Any]]


class Task(Reply):
    """A contract: what can be pushed."""

    model_config = _such_as(examples.TASK)

    name: str
    summary: str
    risk: str
    idempotent: bool
    governed: bool
    limit_seconds: float
    #: JSON Schema of its arguments
    arguments: dict[str, Any]


class Pushed(Reply):
    model_config = _such_as(examples.PUSHED)

    status: Literal["queued"]
    task_id: str
    agent_id: str
    host_id: str
    #: whether the control plane has it on record: from then on no failure of the broker loses it
    recorded: bool


class PushedRun(Reply):
    task_id: str
    host_id: str


class Batch(Reply):
    model_config = _such_as(examples.BATCH)

    status: Literal["queued"]
    batch: str
    runs: list[PushedRun]
    #: hosts that were left out
    skipped: list[str]
    recorded: bool


class Executed(Reply):
    """How a command stands."""

    model_config = _such_as(examples.EXECUTED)

    status: Literal["approval_required", "queued", "running", "completed", "failed", "denied", "cancelled", "unknown"]
    run_id: str
    agent_id: str
    host_id: str
    #: what to name to `/api/approvals` while it waits for one
    approval_id: str | None = None
    exit_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    truncated: bool | None = None
    duration_seconds: float | None = None
    error: dict[str, Any] | None = None


class Asked(Reply):
    """What was asked for is under way."""

    model_config = _such_as(examples.ASKED)

    status: Literal["asked"] = "asked"
    id: str


class Worker(Reply):
    model_config = _such_as(examples.WORKER)

    host: str
    state: Literal["running", "stopped", "stale"]
    pid: int | None
    started_by: Literal["start", "other"] | None


class Health(Reply):
    model_config = _such_as(examples.HEALTH)

    status: Literal["ok", "fail"]
    checks: dict[str, dict[str, Any]]
