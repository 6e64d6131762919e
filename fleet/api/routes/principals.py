"""`/api/principals`: whoever may push, and `/api/me`: whoever asks."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fleet import bearer, errors, logs, members, principals, records, shapes
from fleet.api import replies, words
from fleet.api.access import Admin, Anybody
from fleet.api.given import ThePlane
from fleet.api.plane import Plane

log = logs.get(__name__)
router = APIRouter(prefix="/api", tags=["principals"])


@router.get("/me", response_model=replies.Me)
def me(caller: Anybody, plane: ThePlane) -> dict[str, Any]:
    """Say who you are, what you may do, and what became of all that you have asked for."""
    known = caller.bearer
    return {
        **_with_record(plane, caller.name),
        "scope": known.scope.value,
        "token_id": known.token_id,
        "token_expires_at": known.expires_at,
    }


@router.get("/principals", response_model=list[replies.Principal])
def listing(_: Admin, plane: ThePlane, query: Annotated[words.PrincipalQuery, Query()]) -> list[dict[str, Any]]:
    """List principals by name, the revoked ones too."""
    with plane.read() as session:
        found = principals.everybody(session, after=query.after, limit=query.limit)
        return [shapes.principal(row) for row in found]


@router.get("/principals/{principal}", response_model=replies.PrincipalWithRecord)
def show(_: Admin, plane: ThePlane, principal: words.PrincipalName) -> dict[str, Any]:
    """Show what a principal may do, and its record: what became of all that it has asked for."""
    return _with_record(plane, principal)


@router.post("/principals", response_model=replies.NewPrincipal, status_code=201)
def create(caller: Admin, plane: ThePlane, body: words.NewPrincipal) -> dict[str, Any]:
    """Make a principal; its file, the only copy of its key, and a bearer token for this API are in the answer."""
    settings = plane.settings
    with plane.control() as control:
        made = principals.create(
            control.session,
            ring=control.ring,
            name=body.id,
            level=body.level,
            selectors=body.selectors,
            approves=body.approves,
            ttl=timedelta(seconds=body.ttl_seconds),
            by=caller.name,
            broker_url=settings.require_broker_url(),
            broker_ca=settings.resolved_broker_ca,
        )
        text = bearer.create(control.session, held=made, by=caller.name)
        row = members.admit_principal(control.session, control.client, body.id)
        shown = shapes.principal(row)
    _announce(plane)
    return {**shown, "file": made.model_dump(mode="json"), "bearer_token": text}


@router.post("/principals/{principal}/level", response_model=replies.PrincipalWithRecord)
def set_level(caller: Admin, plane: ThePlane, principal: words.PrincipalName, body: words.SetLevel) -> dict[str, Any]:
    """Change how far a principal is trusted, on every host, from now on."""
    with plane.control() as control:
        principals.set_level(
            control.session, principal, body.level, ring=control.ring, by=caller.name, approves=body.approves
        )
    _announce(plane)
    return _with_record(plane, principal)


@router.delete("/principals/{principal}", response_model=replies.Asked)
def revoke(caller: Admin, plane: ThePlane, principal: words.PrincipalName) -> dict[str, Any]:
    """Let a principal push nothing more, from now on and on every host; its bearer tokens end as well."""
    with plane.control() as control:
        members.revoke_principal(control.session, control.client, principal, by=caller.name)
    _announce(plane)
    return {"id": principal}


@router.get("/principals/{principal}/tokens", response_model=list[replies.BearerToken])
def bearer_tokens(_: Admin, plane: ThePlane, principal: words.PrincipalName) -> list[dict[str, Any]]:
    """List a principal's bearer tokens, the expired and the revoked ones too."""
    with plane.read() as session:
        rows = bearer.listing(session, principal=principal)
    return [shapes.bearer_token(row, state=bearer.state(row)) for row in rows]


@router.delete("/bearer-tokens/{token}", response_model=replies.Asked)
def revoke_bearer_token(caller: Admin, plane: ThePlane, token: words.PublicId) -> dict[str, Any]:
    """Let a bearer token count no more, from the next request on."""
    with plane.write() as session:
        bearer.revoke(session, token, by=caller.name)
    return {"id": token}


def _with_record(plane: Plane, name: str) -> dict[str, Any]:
    with plane.read() as session:
        row = principals.get(session, name)
        return {**shapes.principal(row), "record": records.of(session, name)}


def _announce(plane: Plane) -> None:
    """Tell hosts and callers, once it is committed.

    A broker that has gone away hears it from the control worker; what was made is answered all the same, since a
    principal's key is nowhere else.
    """
    try:
        with plane.control() as control:
            members.announce_trust(control.session, control.client, control.ring)
    except errors.BrokerUnavailable as exc:
        log.warning("trust.unannounced", error=str(exc), next="the control worker does it when the broker is back")
