"""`/api/tokens`: enrollment tokens, by which machines become hosts."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fleet import enrollment, members, shapes
from fleet.api import replies, words
from fleet.api.access import Admin
from fleet.api.given import ThePlane

router = APIRouter(prefix="/api/tokens", tags=["tokens"])


@router.get("", response_model=list[replies.Token])
def listing(_: Admin, plane: ThePlane, query: Annotated[words.TokenQuery, Query()]) -> list[dict[str, Any]]:
    """List enrollment tokens, the newest first, the used and the expired ones too."""
    with plane.read() as session:
        found = enrollment.list_tokens(session, before=query.before, limit=query.limit)
        return [shapes.token(row, state=enrollment.state(row)) for row in found]


@router.post("", response_model=replies.NewToken, status_code=201)
def create(caller: Admin, plane: ThePlane, body: words.NewToken | None = None) -> dict[str, Any]:
    """Make an enrollment token: `token` is shown this once."""
    wish = body or words.NewToken()
    settings = plane.settings
    with plane.control() as control:
        text = enrollment.create_token(
            control.session,
            ring=control.ring,
            ttl=timedelta(seconds=wish.ttl_seconds),
            uses=wish.uses,
            host_id=wish.host_id,
            labels=wish.labels,
            created_by=caller.name,
            broker_url=settings.require_broker_url(),
            broker_ca=settings.require_broker().ca,
        )
        row = members.admit_token(control.session, control.client, control.ring, text)
    return {**shapes.token(row, state=enrollment.state(row)), "token": text}


@router.delete("/{token}", response_model=replies.Asked)
def revoke(caller: Admin, plane: ThePlane, token: words.PublicId) -> dict[str, Any]:
    """Revoke a token by its id, so that it enrolls nobody any more."""
    with plane.control() as control:
        members.revoke_token(control.session, control.client, token, by=caller.name)
    return {"id": token}
