"""Examples: what replies look like, for the description of the API; a test holds each against its own schema.

They tell of one day of a small fleet: alice pushes, ci asks, and edge-7 does it.
"""

import json
from typing import Any

#: Such as records have them.
_AT, _LATER, _END = "2026-07-01T10:00:00Z", "2026-07-01T10:00:01Z", "2026-07-01T10:00:02Z"
_RUN_ID = "edge-7:019fbe1a-7a80-7000-8000-000000000001"
_WAITING_ID = "edge-7:019fbe1a-7a80-7000-8000-000000000002"
_BATCH_ID = "019fbe1a-7a80-7000-8000-0000000000ba"
_RECORD = {
    "runs": 4,
    "succeeded": 2,
    "failed": 0,
    "cancelled": 1,
    "unknown": 0,
    "rejected": 0,
    "denied_by_policy": 0,
    "asked": 1,
    "waiting": 1,
    "approved": 0,
    "denied": 0,
    "expired": 0,
    "since": _AT,
    "last": _END,
}

HOST = {
    "id": "edge-7",
    "presence": "online",
    "membership": "accepted",
    "availability": "active",
    "labels": {"env": "prod"},
    "suspect": None,
    "facts": {"hostname": "edge-7", "fleet_version": "1.0.0", "cpus": 4, "docker_version": "28.1.1"},
    "enrolled_at": _AT,
    "registered_at": _LATER,
    "last_seen_at": _END,
    "signed_off_at": None,
    "inventory_at": _END,
    "heartbeat": {"host": "edge-7", "version": "1.0.0", "in_hand": 0, "queue_length": 0, "docker_reachable": True},
}
CONTAINER = {
    "host": "edge-7",
    "docker_id": "5f0d1c2b3a49" + "0" * 52,
    "name": "web",
    "image": "nginx:1.29",
    "state": "running",
    "status": "Up 3 minutes (healthy)",
    "health": "healthy",
    "ports": [{"container_port": 80, "protocol": "tcp", "host_ip": "127.0.0.1", "host_port": 8080}],
    "labels": {"fleet.managed": "true"},
    "managed": True,
    "created": _AT,
    "started": _LATER,
}
RUN = {
    "id": _RUN_ID,
    "host": "edge-7",
    "task": "fleet.host.ping",
    "state": "succeeded",
    "description": "is it there?",
    "submitted_by": "alice",
    "submitted_at": _AT,
    "assigned_at": _LATER,
    "started_at": _LATER,
    "finished_at": _END,
    "not_after": None,
    "not_before": None,
    "attempt": 1,
    "max_retries": 0,
    "limit_seconds": None,
    "retry_of": None,
    "cancel_requested_at": None,
    "cancel_requested_by": None,
    "sent_again_at": None,
    "batch": _BATCH_ID,
    "progress": None,
    "arguments": {"echo": "hi"},
    "metadata": {"ticket": 4711},
    "reply": {"host": "edge-7", "echo": "hi"},
    "error": None,
}
RUN_WITH_ATTEMPTS = {
    **RUN,
    "attempts": [
        {
            "number": 1,
            "state": "succeeded",
            "epoch": 3,
            "started_at": _LATER,
            "finished_at": _END,
            "duration_seconds": 0.01,
        }
    ],
}
APPROVAL = {
    "id": _WAITING_ID,
    "host": "edge-7",
    "state": "pending",
    "principal": "ci",
    "level": "student",
    "risk": "changes",
    "rule": "students ask",
    "task": "fleet.shell.run",
    "arguments": {"argv": ["/usr/bin/systemctl", "restart", "nginx"]},
    "limit_seconds": 60.0,
    "max_retries": 0,
    "description": "ticket 4711",
    "exact": True,
    "digest": "9f" * 32,
    "asked_at": _AT,
    "approve_before": "2026-07-01T11:00:00Z",
    "run_before": None,
    "decided_by": None,
    "decided_at": None,
    "reason": "",
    "run_state": "awaiting_approval",
}
APPROVAL_WITH_RECORD = {**APPROVAL, "record": _RECORD}
PRINCIPAL = {
    "id": "ci",
    "level": "student",
    "selectors": {"env": "prod"},
    "approves": [],
    "state": "valid",
    "expires_at": "2027-07-01T10:00:00Z",
    "created_at": _AT,
    "created_by": "alice",
}
PRINCIPAL_WITH_RECORD = {**PRINCIPAL, "record": _RECORD}
NEW_PRINCIPAL = {
    **PRINCIPAL,
    "file": {"name": "ci", "private_key": "…", "credential": "…", "broker_url": "rediss://broker.example:6379/0"},
    "bearer_token": "fleetapi.0123456789abcdef.…",
}
ME = {
    **PRINCIPAL_WITH_RECORD,
    "scope": "use",
    "token_id": "0123456789abcdef",
    "token_expires_at": "2026-07-31T10:00:00Z",
}
BEARER_TOKEN = {
    "id": "0123456789abcdef",
    "principal": "ci",
    "scope": "use",
    "state": "valid",
    "description": "",
    "created_by": "alice",
    "created_at": _AT,
    "expires_at": "2026-07-31T10:00:00Z",
    "revoked_at": None,
    "used_at": _END,
}
TOKEN = {
    "id": "fedcba9876543210",
    "state": "valid",
    "host": "edge-8",
    "labels": {"env": "prod"},
    "uses_left": 1,
    "created_by": "alice",
    "created_at": _AT,
    "expires_at": "2026-07-01T10:15:00Z",
    "revoked_at": None,
}
NEW_TOKEN = {**TOKEN, "token": "fleet.fedcba9876543210.…"}
AUDIT_EVENT = {
    "v": 1,
    "id": 42,
    "event": "run.succeeded",
    "actor": "edge-7",
    "host": "edge-7",
    "run": _RUN_ID,
    "occurred_at": _END,
    "recorded_at": _END,
    "epoch": 3,
    "seq": 17,
    "data": {"attempt": 1},
    "hash": "1c" * 32,
}
SHELL_SESSION = {
    "id": _RUN_ID,
    "host": "edge-7",
    "principal": "alice",
    "level": "autonomous",
    "task": "fleet.shell.run",
    "argv": ["/usr/bin/uptime"],
    "cwd": None,
    "risk": "reads",
    "decision": "allow",
    "reason": "allowed",
    "rule": "autonomous: listed commands run",
    "policy": 3,
    "approved_by": None,
    "asked_at": _AT,
    "started_at": _LATER,
    "finished_at": _END,
    "duration_seconds": 0.01,
    "outcome": "exited",
    "exit_code": 0,
    "detail": "",
    "stdout": " 10:00:01 up 41 days\n",
    "stderr": "",
    "stdout_bytes": 21,
    "stderr_bytes": 0,
    "stdout_sha256": "339d485304cdb6c84022d6ccc08769f3b48f4a170f81b54d52c9d4f1dd9342e2",
    "stderr_sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "truncated": False,
    "attempt": 1,
    "earlier": [],
}
TASK = {
    "name": "fleet.host.ping",
    "summary": "Answer, to show that the host consumes its queue.",
    "risk": "reads",
    "idempotent": True,
    "governed": False,
    "limit_seconds": 3600.0,
    "arguments": {"type": "object", "properties": {"echo": {"type": "string"}}, "additionalProperties": False},
}
PUSHED = {"status": "queued", "task_id": _RUN_ID, "agent_id": "edge-7", "host_id": "edge-7", "recorded": True}
BATCH = {
    "status": "queued",
    "batch": _BATCH_ID,
    "runs": [{"task_id": _RUN_ID, "host_id": "edge-7"}],
    "skipped": ["edge-9"],
    "recorded": True,
}
EXECUTED = {
    "status": "completed",
    "run_id": _RUN_ID,
    "agent_id": "edge-7",
    "host_id": "edge-7",
    "approval_id": None,
    "exit_code": 0,
    "stdout": " 10:00:01 up 41 days\n",
    "stderr": "",
    "truncated": False,
    "duration_seconds": 0.01,
    "error": None,
}
ASKED = {"status": "asked", "id": "edge-7"}
WORKER = {"host": "edge-7", "state": "running", "pid": 4711, "started_by": "start"}
HEALTH = {
    "status": "ok",
    "checks": {
        "broker": {"ok": True, "says": "the broker answers"},
        "database": {"ok": True, "says": "the database answers"},
    },
}


def _event(name: str, data: dict[str, Any], number: int | None = None) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n" + (f"id: {number}\n" if number else "") + "\n"


#: What follows a run, at its end.
EVENTS = _event("run.succeeded", AUDIT_EVENT, 42) + _event("end", RUN_WITH_ATTEMPTS)
