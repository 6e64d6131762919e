"""`/api/hosts`: the machines of the fleet, and `/api/containers`: what runs there."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fleet import availability, clock, errors, inventory, labeling, members, presence, shapes
from fleet.api import replies, sight, words
from fleet.api.access import Admin, Anybody
from fleet.api.callers import Caller
from fleet.api.given import ThePlane
from fleet.api.plane import Plane
from fleet.contracts.containers import Container
from fleet.contracts.hosts import Availability
from fleet.models import Host

router = APIRouter(prefix="/api", tags=["hosts"])
#: Hosts that are read at once, where only some of them may be wanted.
_LOOKED_AT = 500


@router.get("/hosts", response_model=list[replies.Host])
def hosts(caller: Anybody, plane: ThePlane, query: Annotated[words.HostQuery, Query()]) -> list[dict[str, Any]]:
    """List the hosts that your selectors name, by id: who is enrolled, and who is here now."""
    wanted = {**query.selector, **sight.selector(caller)}
    if any(wanted[key] != value for key, value in query.selector.items()):
        return []
    if query.presence is None:
        return _records(plane, _page(plane, wanted, query.after, query.limit))
    return list(islice(_present(plane, wanted, query), query.limit))


@router.get("/hosts/{host}", response_model=replies.Host)
def host(caller: Anybody, plane: ThePlane, host: words.HostId) -> dict[str, Any]:
    """Show all that is known of one host."""
    [record] = _records(plane, [_seen(plane, caller, host)])
    return record


@router.get("/containers", response_model=list[replies.Container])
def containers(
    caller: Anybody, plane: ThePlane, query: Annotated[words.ContainerQuery, Query()]
) -> list[dict[str, Any]]:
    """List the containers of the hosts that your selectors name, as the database has them since their last report.

    By host and name. `inventory_at` of a host says how old that is at most.
    """
    if query.host:
        _seen(plane, caller, query.host)
    with plane.read() as session:
        found = inventory.containers(
            session,
            host=query.host,
            all=not query.running,
            managed=query.managed,
            selector=sight.selector(caller),
            after=query.place,
            limit=query.limit,
        )
    return [shapes.container(row.host_id, Container(**row.model_dump(exclude={"host_id"}))) for row in found]


@router.post("/hosts/{host}/pause", response_model=replies.Asked)
def pause(caller: Admin, plane: ThePlane, host: words.HostId) -> dict[str, Any]:
    """Have a host take no new work; its queue waits, and what runs goes on."""
    return _set(plane, caller, host, Availability.PAUSED)


@router.post("/hosts/{host}/resume", response_model=replies.Asked)
def resume(caller: Admin, plane: ThePlane, host: words.HostId) -> dict[str, Any]:
    """Have a host take work again."""
    return _set(plane, caller, host, Availability.ACTIVE)


@router.post("/hosts/{host}/drain", response_model=replies.Asked)
def drain(caller: Admin, plane: ThePlane, host: words.HostId, body: words.Drain | None = None) -> dict[str, Any]:
    """Have a host take no new work, because it is about to be switched off, and let what runs finish."""
    seconds = body.deadline_seconds if body else None
    deadline = None if seconds is None else timedelta(seconds=seconds)
    return _set(plane, caller, host, Availability.DRAINING, deadline=deadline)


@router.post("/hosts/{host}/labels", response_model=replies.Host)
def label(caller: Admin, plane: ThePlane, host: words.HostId, body: words.SetLabels) -> dict[str, Any]:
    """Set labels of a host, and remove others."""
    caller.asks_about(host=host)
    with plane.control() as control, body.named():
        members.set_labels(control.session, host, to_set=body.set, to_remove=body.remove, by=caller.name)
    with plane.control() as control:
        members.announce_host(control.session, control.client, control.ring, host)
        row = inventory.host(control.session, host)
    [record] = _records(plane, [row])
    return record


@router.post("/hosts/{host}/rotate", response_model=replies.Asked)
def rotate(caller: Admin, plane: ThePlane, host: words.HostId) -> dict[str, Any]:
    """Have a host change its key and its broker password, while it works."""
    caller.asks_about(host=host)
    with plane.control() as control:
        members.request_key_rotation(control.session, control.client, control.ring, host, by=caller.name)
    return {"id": host}


@router.delete("/hosts/{host}", response_model=replies.Asked)
def revoke(caller: Admin, plane: ThePlane, host: words.HostId) -> dict[str, Any]:
    """Put a host out of the fleet, within two seconds: its worker ends, and what waits for it is gone."""
    caller.asks_about(host=host)
    with plane.control() as control:
        members.revoke_host(control.session, control.client, control.ring, host, by=caller.name)
    return {"id": host}


def _set(
    plane: Plane, caller: Caller, host: str, wanted: Availability, *, deadline: timedelta | None = None
) -> dict[str, Any]:
    caller.asks_about(host=host)
    availability.set(plane.control, [host], wanted, by=caller.name, deadline=deadline)
    return {"id": host}


def _seen(plane: Plane, caller: Caller, host: str) -> Host:
    """Return a host that this caller sees; raise `errors.NotFound` for all others."""
    with plane.read() as session:
        row = session.get(Host, host)
    if row is None or not labeling.matches(row.labels, sight.selector(caller)):
        raise _unknown(host)
    caller.asks_about(host=host)
    return row


def _unknown(host: str) -> errors.NotFound:
    return errors.NotFound(f"no host named {host!r} is enrolled", remedy="GET /api/hosts lists them")


def _page(plane: Plane, selector: Mapping[str, str], after: str | None, limit: int) -> list[Host]:
    with plane.read() as session:
        return inventory.hosts(session, selector=selector, after=after, limit=limit)


def _present(plane: Plane, selector: Mapping[str, str], query: words.HostQuery) -> Iterator[dict[str, Any]]:
    """Yield the hosts of a presence, which the registry knows and the database cannot be asked for."""
    after = query.after
    while rows := _page(plane, selector, after, _LOOKED_AT):
        after = rows[-1].id
        for record in _records(plane, rows):
            if record["presence"] == "unknown":  # and not "nobody is online"
                raise errors.BrokerUnavailable("presence is unknown: the broker does not answer")
            if record["presence"] == query.presence:
                yield record


def _records(plane: Plane, rows: list[Host]) -> list[dict[str, Any]]:
    """Join what the database knows for good with what the registry says now; of a broker that is away, nothing."""
    try:
        with plane.registry() as client:
            beats = presence.read(client, [row.id for row in rows])
    except errors.BrokerUnavailable:
        return [shapes.host(row, presence=None, heartbeat=None) for row in rows]
    now = clock.now()
    return [shapes.host(row, presence=presence.of(row, beats[row.id], now), heartbeat=beats[row.id]) for row in rows]
