"""Shapes: the records that programs get, one function a noun (an audit
event's is `audit.to_wire`). A key, once here, keeps its name and its meaning."""

from typing import TYPE_CHECKING, Any

from fleet import clock

if TYPE_CHECKING:
    from fleet.approvals import Request
    from fleet.client import Outcome
    from fleet.contracts.containers import Container
    from fleet.contracts.presence import Heartbeat, Presence
    from fleet.errors import FleetError
    from fleet.models import (
        Approval,
        Attempt,
        BearerToken,
        EnrollmentToken,
        Host,
        Principal,
        Run,
        Secret,
        ShellSession,
    )


def host(row: "Host", *, presence: "Presence | None", heartbeat: "Heartbeat | None") -> dict[str, Any]:
    """`presence` is None where the broker, and with it the registry, could not be read."""
    return {
        "id": row.id,
        "presence": presence.value if presence else "unknown",
        "membership": row.membership,
        "availability": row.availability,
        "labels": row.labels,
        "suspect": row.suspect,
        "facts": row.facts,
        "enrolled_at": row.enrolled_at,
        "registered_at": row.registered_at,
        # the control plane writes it down every few seconds; a heartbeat at hand is newer
        "last_seen_at": clock.from_unix(heartbeat.at) if heartbeat else row.last_seen_at,
        "signed_off_at": row.signed_off_at,
        "inventory_at": row.inventory_at,
        "heartbeat": heartbeat.model_dump(mode="json") if heartbeat else None,
    }


def principal(row: "Principal") -> dict[str, Any]:
    return {
        "id": row.id,
        "level": row.level,
        "selectors": row.selectors,
        "approves": row.approves,
        "state": "revoked" if row.revoked_at else "expired" if row.expires_at <= clock.now() else "valid",
        "expires_at": row.expires_at,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }


def secret(row: "Secret") -> dict[str, Any]:
    return {
        "id": row.id,
        "version": row.version,
        "size": row.size,
        "selectors": row.selectors,
        "principals": row.principals,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }


def container(host_id: str, row: "Container") -> dict[str, Any]:
    return {
        "host": host_id,
        "docker_id": row.docker_id,
        "name": row.name,
        "image": row.image,
        "state": row.state,
        "status": row.status,
        "health": row.health,
        "ports": [port.model_dump(mode="json") for port in row.ports],
        "labels": row.labels,
        "managed": row.managed,
        "created": row.created,
        "started": row.started,
    }


def run(row: "Run") -> dict[str, Any]:
    """A task with everything that is known of it."""
    return {
        "id": row.id,
        "host": row.host_id,
        "task": row.task,
        "state": row.state,
        "description": row.description,
        "submitted_by": row.submitted_by,
        "submitted_at": row.submitted_at,
        "assigned_at": row.assigned_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "not_after": row.not_after,
        "not_before": row.not_before,
        "attempt": row.attempt,
        "max_retries": row.max_retries,
        "limit_seconds": row.limit_seconds,
        "retry_of": row.retry_of,
        "cancel_requested_at": row.cancel_requested_at,
        "cancel_requested_by": row.cancel_requested_by,
        "sent_again_at": row.sent_again_at,
        "batch": row.batch,
        "progress": row.progress,
        "arguments": row.arguments,
        "metadata": row.meta,
        "reply": row.reply,
        "error": row.error,
    }


def approval(
    row: "Approval", run: "Run", *, request: "Request | None", session: "ShellSession | None"
) -> dict[str, Any]:
    """A run that waits, or waited, for approval; `request` is what its host has parked, as its principal signed it.

    Of runs that have ended that is not kept. `exact` says whether task, arguments and limits are from it, or only as
    they were reported.
    """
    limits = request.envelope.limits if request else None
    told = {"argv": session.argv, "cwd": session.cwd} if session else run.arguments
    return {
        "id": row.run_id,
        "host": row.host_id,
        "state": row.state,
        "principal": row.principal,
        "level": row.level,
        "risk": row.risk,
        "rule": row.rule,
        "task": request.task if request else run.task or (session.task if session else ""),
        "arguments": request.arguments if request else told,
        "run_as": session.run_as if session else None,
        "limit_seconds": limits.hard_seconds if limits else run.limit_seconds,
        "max_retries": request.envelope.retry.max_retries if request else run.max_retries,
        "description": request.envelope.description if request else run.description,
        "exact": request is not None,
        "digest": row.digest,
        "asked_at": row.asked_at,
        "approve_before": row.approve_before,
        "run_before": row.run_before,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at,
        "reason": row.reason,
        "run_state": run.state,
    }


def shell_session(row: "ShellSession") -> dict[str, Any]:
    """A command or file operation, with everything that is on record of it."""
    return {
        "id": row.run_id,
        "host": row.host_id,
        "principal": row.principal,
        "level": row.level,
        "task": row.task,
        "argv": row.argv,
        "cwd": row.cwd,
        "run_as": row.run_as,
        "risk": row.risk,
        "decision": row.decision,
        "reason": row.reason,
        "rule": row.rule,
        "policy": row.policy,
        "approved_by": row.approved_by,
        "asked_at": row.asked_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_seconds": row.duration_seconds,
        "outcome": row.outcome,
        "exit_code": row.exit_code,
        "detail": row.detail,
        "stdout": row.stdout,
        "stderr": row.stderr,
        "stdout_bytes": row.stdout_bytes,
        "stderr_bytes": row.stderr_bytes,
        "stdout_sha256": row.stdout_sha256,
        "stderr_sha256": row.stderr_sha256,
        "truncated": row.truncated,
        "attempt": row.attempt,
        "earlier": row.earlier,
    }


def attempt(row: "Attempt") -> dict[str, Any]:
    return {
        "number": row.number,
        "state": row.state,
        "epoch": row.epoch,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_seconds": row.duration_seconds,
    }


def token(row: "EnrollmentToken", *, state: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": state,
        "host": row.host_id,
        "labels": row.labels,
        "uses_left": row.uses_left,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


def bearer_token(row: "BearerToken", *, state: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "principal": row.principal,
        "scope": row.scope,
        "state": state,
        "description": row.description,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "used_at": row.used_at,
    }


def outcome(run_id: str, host_id: str, ended: "Outcome | None", *, state: str = "queued") -> dict[str, Any]:
    """How a pushed task stands; `ended` is None while that is not known, and `state` says what is."""
    error = ended.error if ended else None
    return {
        "id": run_id,
        "host": host_id,
        "state": ended.state if ended else state,
        "reply": ended.reply if ended else None,
        "error": error and {"kind": _kind(error), "message": error.message, "exit_code": error.exit_code},
    }


def _kind(error: "FleetError") -> str:
    """Return the stable word for what went wrong: a failed task's cause, or why the host refused it."""
    return str(getattr(error, "kind", None) or getattr(error, "reason", None) or error.code)
