"""`/health`: whether the API lives, and whether it can serve. Anybody may ask, and learns nothing else."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import text

from fleet import errors
from fleet.api import replies
from fleet.api.given import ThePlane
from fleet.api.plane import Plane

router = APIRouter(tags=["health"])
_AWAY: dict[int | str, dict[str, Any]] = {503: {"model": replies.Health, "description": "not ready; `checks` says why"}}


@router.get("/health/live", response_model=replies.Health)
async def live() -> dict[str, Any]:
    """Say that the process answers; it takes none of the threads, which may all wait for a broker that hangs."""
    return {"status": "ok", "checks": {}}


@router.get("/health/ready", response_model=replies.Health, responses=_AWAY)
def ready(plane: ThePlane, response: Response) -> dict[str, Any]:
    """Say whether requests can be served: broker and database answer."""
    checks = {
        "broker": _check(lambda: _ask_broker(plane), "the broker"),
        "database": _check(lambda: _ask_database(plane), "the database"),
    }
    is_ready = all(check["ok"] for check in checks.values())
    response.status_code = 200 if is_ready else 503
    return {"status": "ok" if is_ready else "fail", "checks": checks}


@router.get("/health", response_model=replies.Health, responses=_AWAY)
def health(plane: ThePlane, response: Response) -> dict[str, Any]:
    """The same as `/health/ready`."""
    return ready(plane, response)


def _check(ask: Callable[[], object], name: str) -> dict[str, Any]:
    try:
        ask()
    except errors.FleetError:
        return {"ok": False, "says": f"{name} does not answer"}
    return {"ok": True, "says": f"{name} answers"}


def _ask_broker(plane: Plane) -> None:
    with plane.registry() as client:
        client.ping()


def _ask_database(plane: Plane) -> None:
    with plane.read() as session:
        session.execute(text("SELECT 1"))
