"""`/api/shell`: commands on hosts, as the fleet's policy lists them: an argument list, never a shell."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Response
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from fleet import errors, runs
from fleet.api import pushes, replies, sight, waiting, words
from fleet.api.access import Anybody
from fleet.api.callers import Caller
from fleet.api.given import TheNews, ThePlane
from fleet.api.routes import approvals
from fleet.contracts import shell
from fleet.models import Run, RunState

router = APIRouter(prefix="/api/shell", tags=["shell"])

_STATUS = {
    RunState.AWAITING_APPROVAL: "approval_required",
    RunState.QUEUED: "queued",
    RunState.ACCEPTED: "queued",
    RunState.RUNNING: "running",
    RunState.RECOVERING: "running",
    RunState.SUCCEEDED: "completed",
    RunState.FAILED: "failed",
    RunState.REJECTED: "denied",
    RunState.CANCELLED: "cancelled",
    RunState.UNKNOWN: "unknown",
}
_GOES_ON: dict[int | str, dict[str, Any]] = {
    202: {"model": replies.Executed, "description": "`approval_required` with its id, or it still runs"}
}


@router.post("/execute", response_model=replies.Executed, responses=_GOES_ON)
async def execute(
    caller: Anybody, plane: ThePlane, news: TheNews, body: pushes.Execute, response: Response
) -> dict[str, Any]:
    """Run a command, and wait a while for its end.

    200: it has ended; its exit code is in the answer, whatever it is. 202 `approval_required`: it waits on the host
    until somebody else approves it, by `approval_id`. 202 `running`: it takes longer than `wait_seconds`.
    400 `not_in_allow_list`: the policy does not list it.
    """
    news.require_room(caller.name)
    run_id = await run_in_threadpool(_push, caller, body)

    def settled(session: Session) -> Run | None:
        row = session.get(Run, run_id)
        waits = row is not None and row.state == RunState.AWAITING_APPROVAL
        return row if row is not None and (waits or runs.is_final(row.state)) else None

    try:
        row = await waiting.until(plane, news, run_id, settled, principal=caller.name, seconds=body.wait_seconds)
    except errors.Unreachable:  # it is pushed: who did not hear of it would push it again
        row = None
    if row is not None and row.state == RunState.REJECTED:
        error: Mapping[str, Any] = row.error or {}
        raise errors.TaskRejected(str(error.get("kind", "rejected")), str(error.get("message", "")))
    found = _executed(run_id, row)
    response.status_code = 200 if row is not None and runs.is_final(row.state) else 202
    return found


@router.get("/status/{run}", response_model=replies.Executed)
def status(caller: Anybody, plane: ThePlane, run: words.RunId) -> dict[str, Any]:
    """Say how a command stands, and what it wrote once it has ended.

    410 `expired`: nobody approved it in time, or it did not begin in time; it never ran.
    """
    with plane.read() as session:
        row = sight.run(session, caller, run)
    caller.asks_about(host=row.host_id, run=row.id)
    if row.task not in {shell.RUN.name, ""}:
        raise errors.NotFound(f"the run {row.id!r} is no command", remedy=f"GET /api/runs/{row.id} shows it")
    return _executed(row.id, row)


@router.post("/approve/{run}", response_model=replies.Approval)
async def approve(
    caller: Anybody, plane: ThePlane, news: TheNews, run: words.RunId, body: words.Answer | None = None
) -> dict[str, Any]:
    """Answer for a command that waits: the same as `/api/approvals/{id}/approve`, and `deny` with `approve` false."""
    word = body or words.Answer()
    return await approvals.answer(plane, news, caller, run, says="approve" if word.approve else "deny", word=word)


def _push(caller: Caller, body: pushes.Execute) -> str:
    arguments: dict[str, Any] = {"argv": body.argv}
    if body.cwd is not None:
        arguments["cwd"] = body.cwd
    if body.env:
        arguments["env"] = body.env
    caller.asks_about(host=body.host)
    limit = None if body.time_limit_seconds is None else timedelta(seconds=body.time_limit_seconds)
    batch = caller.fleet.push(shell.RUN, on=body.host, arguments=arguments, description=body.reason, time_limit=limit)
    caller.asks_about(host=body.host, run=batch.run_ids[0])
    return batch.run_ids[0]


def _executed(run_id: str, row: Run | None) -> dict[str, Any]:
    """Return how a run of that id stands; what nobody has recorded yet is queued.

    Raises `errors.TaskExpired` for one whose time is over.
    """
    state = RunState(row.state) if row is not None else RunState.QUEUED
    if state is RunState.EXPIRED:
        raise errors.TaskExpired(
            f"{run_id} is expired: it was not approved, or did not begin, in time", remedy="ask for it again"
        )
    reply: Mapping[str, Any] = (row.reply if row is not None else None) or {}
    host = run_id.partition(":")[0]
    return {
        "status": _STATUS[state],
        "run_id": run_id,
        "agent_id": host,
        "host_id": host,
        "approval_id": run_id if state is RunState.AWAITING_APPROVAL else None,
        **{name: reply.get(name) for name in ("exit_code", "stdout", "stderr", "truncated", "duration_seconds")},
        "error": row.error if row is not None else None,
    }
