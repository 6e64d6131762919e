"""Governed runs as their hosts report them: judged, parked, answered, ended."""

from typing import Any

from fleet import names
from fleet.contracts.reports import Kind, Report
from tests import factories

#: When the host judged, in unix seconds; what follows does so a second each.
JUDGED_AT = 1_750_000_001.0
APPROVE_BEFORE = JUDGED_AT + 600
RUN_BEFORE = JUDGED_AT + 900
DIGEST = "0123456789abcdef" * 4
ARGV = ("/usr/bin/uptime", "-p")


def verdict(decision: str = "ask", **more: Any) -> dict[str, Any]:
    """Return how a host says that it judged a command of alice's, who is a student."""
    reasons = {"allow": "allowed", "ask": "needs_approval", "deny": "not_in_allow_list"}
    return {
        "decision": decision,
        "reason": reasons[decision],
        "rule": "student: every listed command asks",
        "risk": "reads",
        "level": "student",
        "principal": "alice",
        "task": "fleet.shell.run",
        "argv": list(ARGV),
        "cwd": "/",
        "policy": 3,
        **more,
    }


def awaiting(**more: Any) -> tuple[Kind, dict[str, Any]]:
    return Kind.RUN_AWAITING_APPROVAL, {
        "verdict": verdict(),
        "digest": DIGEST,
        "approve_before": APPROVE_BEFORE,
        **more,
    }


def accepted(**more: Any) -> tuple[Kind, dict[str, Any]]:
    return Kind.RUN_ACCEPTED, {"verdict": verdict("allow"), **more}


def approved(**more: Any) -> tuple[Kind, dict[str, Any]]:
    return Kind.RUN_APPROVED, {
        "by": "bob",
        "reason": "it only looks",
        "digest": DIGEST,
        "run_before": RUN_BEFORE,
        **more,
    }


def denied(**more: Any) -> tuple[Kind, dict[str, Any]]:
    data = {"reason": "denied", "detail": "not today", "by": "bob", "verdict": verdict(), **more}
    return Kind.RUN_REJECTED, data


def rejected(**more: Any) -> tuple[Kind, dict[str, Any]]:
    data = {"reason": "not_in_allow_list", "detail": "no entry has these arguments", "verdict": verdict("deny"), **more}
    return Kind.RUN_REJECTED, data


def started(**more: Any) -> tuple[Kind, dict[str, Any]]:
    run_as = {"program": "/usr/bin/uptime", "argv": ["/usr/bin/uptime", "-p"], "cwd": "/", "env": [], **more}
    return Kind.SESSION_STARTED, {"run_as": run_as}


def ended(outcome: str = "exited", **more: Any) -> tuple[Kind, dict[str, Any]]:
    return Kind.SESSION_ENDED, {
        "outcome": outcome,
        "started_at": JUDGED_AT + 10,
        "duration_seconds": 0.25,
        "exit_code": 0,
        "stdout": "up 3 days\n",
        "stdout_bytes": 10,
        "stdout_sha256": "ab" * 32,
        "stderr_sha256": "cd" * 32,
        **more,
    }


STARTED: tuple[Kind, dict[str, Any]] = (Kind.RUN_STARTED, {})
SUCCEEDED: tuple[Kind, dict[str, Any]] = (Kind.RUN_SUCCEEDED, {"reply": {"exit_code": 0}, "duration_seconds": 0.25})
EXPIRED: tuple[Kind, dict[str, Any]] = (Kind.RUN_EXPIRED, {"expired_at": APPROVE_BEFORE})
CANCELLED: tuple[Kind, dict[str, Any]] = (Kind.RUN_CANCELLED, {"by": "carol", "reason": "a mistake"})
UNKNOWN: tuple[Kind, dict[str, Any]] = (Kind.RUN_UNKNOWN, {"message": "the machine lost power"})

#: Kinds of which a host does not say at which attempt.
_WITHOUT_ATTEMPT = frozenset({Kind.RUN_REJECTED, Kind.RUN_AWAITING_APPROVAL, Kind.RUN_APPROVED, Kind.APPROVAL_REFUSED})


def told(run: str, *steps: tuple[Kind, dict[str, Any]], first_seq: int = 1, epoch: int = 1) -> list[Report]:
    """Return what the run's host reports of it, one second a step."""
    return [
        factories.report(
            names.host_of_run(run),
            kind,
            run=run,
            attempt=None if kind in _WITHOUT_ATTEMPT else 1,
            data=data,
            epoch=epoch,
            seq=first_seq + index,
            at=JUDGED_AT + first_seq - 1 + index,
        )
        for index, (kind, data) in enumerate(steps)
    ]


def queued(run: str, *, by: str = "alice", **more: Any) -> Report:
    """Return what the principal reports of its push of the command."""
    arguments = {"argv": list(ARGV), "cwd": None, "env": {}}
    return factories.queued(run, by=by, task="fleet.shell.run", arguments=arguments, description="is it up?", **more)
