"""`/api/audit`: what is on record of everybody."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from fleet import audit, sessions, shapes
from fleet.api import replies, sight, words
from fleet.api.access import Auditor
from fleet.api.given import ThePlane

router = APIRouter(prefix="/api/audit", tags=["audit"])


@router.get("", response_model=list[replies.AuditEvent])
def listing(caller: Auditor, plane: ThePlane, query: Annotated[words.AuditQuery, Query()]) -> list[dict[str, Any]]:
    """List audit events, oldest first: the newest, or with `after_id` those that follow that one."""
    with plane.read() as session:
        wanted = query.model_dump()
        if query.run is not None:
            wanted["run"] = sight.run(session, caller, query.run).id
        return [audit.to_wire(row) for row in audit.events(session, **wanted)]


@router.get("/sessions", response_model=list[replies.ShellSession])
def shell_sessions(_: Auditor, plane: ThePlane, query: Annotated[words.SessionQuery, Query()]) -> list[dict[str, Any]]:
    """List commands and file operations: who, what, the decision, the exit code, and what they wrote."""
    with plane.read() as session:
        return [shapes.shell_session(row) for row in sessions.listing(session, **query.model_dump())]
