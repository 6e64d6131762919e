"""Pushing: `/api/admin/push-task` for one host, `/api/pushes` for many, `/api/tasks` for what there is to push."""

from functools import cache
from typing import Any

from fastapi import APIRouter

from fleet import errors
from fleet.api import pushes, replies
from fleet.api.access import Anybody
from fleet.api.callers import Caller
from fleet.client import Batch, Fleet
from fleet.contracts import registry
from fleet.contracts.contract import AnyContract

router = APIRouter(prefix="/api", tags=["pushes"])


@router.get("/tasks", response_model=list[replies.Task])
def tasks(_: Anybody) -> list[dict[str, Any]]:
    """List the tasks that can be pushed, with what each takes and what it may do."""
    return _tasks()


@router.post("/admin/push-task", response_model=replies.Pushed)
def push_task(caller: Anybody, body: pushes.PushTask) -> dict[str, Any]:
    """Push a task to one host.

    Nothing is queued for a host that is not connected (404 `host_not_connected`), unless `offline` is `queue`. What
    your level is not allowed is refused here (403), or waits on the host for somebody's approval, as the policy says.
    """
    caller.asks_about(host=body.host)  # of what is refused there is no run
    with body.named():
        batch = caller.fleet.push(
            body.task, on=body.host, arguments=body.arguments, offline=body.offline, **body.given()
        )
    return pushed(caller, batch)


@router.post("/pushes", response_model=replies.Batch)
def push(caller: Anybody, body: pushes.Push) -> dict[str, Any]:
    """Push a task to several hosts: by name, by labels, or all that your selectors name.

    With `offline` `fail` nothing is pushed to anybody where one of them is not connected; `skip` leaves those out.
    """
    with body.named():
        batch = caller.fleet.push(
            body.task, **body.where(), arguments=body.arguments, offline=body.offline, **body.given()
        )
    return _batch(caller, batch)


def _batch(caller: Caller, batch: Batch) -> dict[str, Any]:
    caller.asks_about(batch=batch.id)
    return {
        "status": "queued",
        "batch": batch.id,
        "runs": [{"task_id": run.id, "host_id": run.host} for run in batch.results],
        "skipped": list(batch.skipped),
        "recorded": recorded(caller.fleet, batch),
    }


def pushed(caller: Caller, batch: Batch) -> dict[str, Any]:
    """Return what is answered for a push to one host."""
    [run] = batch.results
    caller.asks_about(host=run.host, run=run.id)
    return {
        "status": "queued",
        "task_id": run.id,
        "agent_id": run.host,
        "host_id": run.host,
        "recorded": recorded(caller.fleet, batch),
    }


def recorded(fleet: Fleet, batch: Batch) -> bool:
    """Say whether the control plane has recorded a push, as far as can be seen.

    A broker that goes away just then has the messages: who did not hear of the runs would push them again.
    """
    try:
        return fleet.recorded(batch)
    except errors.BrokerUnavailable:
        return False


@cache
def _tasks() -> list[dict[str, Any]]:
    """Return what is known of all tasks: the same for the life of the process, and their schemas are dear to make."""
    return [_task(contract) for _, contract in sorted(registry.known().items())]


def _task(contract: AnyContract) -> dict[str, Any]:
    return {
        "name": contract.name,
        "summary": contract.summary,
        "risk": contract.risk.value,
        "idempotent": contract.idempotent,
        "governed": contract.governed,
        "limit_seconds": contract.limit.total_seconds(),
        "arguments": contract.request.model_json_schema(),
    }
