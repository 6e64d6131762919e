"""`/api/runs`: what was pushed, and what came of it; live by server-sent events."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from fleet import audit, bearer, errors, runs, shapes
from fleet.api import examples, replies, sight, waiting, words
from fleet.api.access import Anybody
from fleet.api.callers import Caller
from fleet.api.given import TheNews, ThePlane
from fleet.api.plane import Plane
from fleet.api.routes import pushing
from fleet.models import Run

router = APIRouter(prefix="/api/runs", tags=["runs"])
_FOLLOWED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"example": examples.EVENTS}}}}


def _named(plane: Plane, caller: Caller, run: str) -> Run:
    with plane.read() as session:
        row = sight.run(session, caller, run)
    caller.asks_about(host=row.host_id, run=row.id)
    return row


def _streamed(caller: Anybody, plane: ThePlane, news: TheNews, run: words.RunId) -> tuple[Caller, str]:
    """Return who follows, and the id of which run; what is wrong with that is said before the stream begins."""
    news.require_room(caller.name)
    return caller, _named(plane, caller, run).id


@router.get("", response_model=list[replies.Run])
def listing(caller: Anybody, plane: ThePlane, query: Annotated[words.RunQuery, Query()]) -> list[dict[str, Any]]:
    """List runs, the newest first: your own, and where you may change something, those of the hosts you may push to."""
    with plane.read() as session:
        wanted = query.model_dump()
        if query.before is not None:
            wanted["before"] = sight.run(session, caller, query.before).id
        found = runs.listing(session, **wanted, sight=sight.of_runs(caller))
    return [shapes.run(row) for row in found]


@router.get("/{run}", response_model=replies.RunWithAttempts)
async def show(
    caller: Anybody, plane: ThePlane, news: TheNews, run: words.RunId, query: Annotated[words.RunOne, Query()]
) -> dict[str, Any]:
    """Show all that is known of one run; with `wait_seconds`, as soon as it has ended."""

    def ended(session: Session) -> bool | None:
        return runs.is_final(runs.get(session, run_id).state) or None

    run_id = (await run_in_threadpool(_named, plane, caller, run)).id
    await waiting.until(plane, news, run_id, ended, principal=caller.name, seconds=query.wait_seconds)
    return await run_in_threadpool(_record, plane, run_id)


@router.post("/{run}/cancel", response_model=replies.Asked)
def cancel(caller: Anybody, plane: ThePlane, run: words.RunId, body: words.Reason | None = None) -> dict[str, Any]:
    """Ask for the end of a run, whether it waits or runs; its record tells what came of that."""
    row = _named(plane, caller, run)
    if runs.is_final(row.state):
        raise errors.Refused(f"{row.id} has ended already: {row.state}")
    caller.fleet.cancel(row.id, reason=body.reason if body else "")
    return {"id": row.id}


@router.post("/{run}/retry", response_model=replies.Pushed)
def retry(
    caller: Anybody,
    plane: ThePlane,
    run: words.RunId,
    *,
    again: Annotated[bool, Query(description="although an unknown run may have had its effect already")] = False,
) -> dict[str, Any]:
    """Push a task that has ended once more, as yours, with the same arguments."""
    row = _named(plane, caller, run)
    if not runs.is_final(row.state):
        raise errors.Refused(f"{row.id} is {row.state}", remedy="wait for its end, or cancel it")
    if row.state == "unknown" and not again:
        raise errors.Refused(
            f"{row.task} on {row.host_id} may have had its effect already",
            remedy="look at the host first; ?again=true runs it again all the same",
        )
    batch = caller.fleet.push(
        row.task,
        on=row.host_id,
        arguments=row.arguments,
        time_limit=row.limit_seconds,
        max_retries=row.max_retries,
        retry_of=row.id,
        description=row.description,
        metadata=row.meta,
    )
    return pushing.pushed(caller, batch)


@router.get("/{run}/events", response_class=EventSourceResponse, responses=_FOLLOWED)
async def events(
    followed: Annotated[tuple[Caller, str], Depends(_streamed)],
    plane: ThePlane,
    news: TheNews,
    last_event_id: Annotated[str | None, Header(pattern=r"^[0-9]{1,18}$")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Follow a run: what was recorded of it, and what is, step by step, until it has ended (server-sent events).

    The name of each is the audit's, its data is the audit's record. The last one is `end`, with the run. Who was cut
    off goes on with `Last-Event-ID`, as browsers do by themselves. A stream without `end` was cut off: the API ended,
    or what the token lets see.
    """
    caller, run_id = followed

    def is_over(session: Session) -> bool:
        now = replace(caller, bearer=bearer.again(session, caller.bearer))
        return runs.is_final(sight.run(session, now, run_id).state)

    try:
        after = int(last_event_id or 0)
        async for each in waiting.events(plane, news, run_id, principal=caller.name, after=after, is_over=is_over):
            if each is not None:
                yield ServerSentEvent(event=each.event, id=str(each.id), data=audit.to_wire(each))
        record = await run_in_threadpool(_record, plane, run_id)
    except (errors.Unauthenticated, errors.NotFound):
        return
    if runs.is_final(record["state"]):
        yield ServerSentEvent(event="end", data=replies.RunWithAttempts(**record))


def _record(plane: Plane, run_id: str) -> dict[str, Any]:
    with plane.read() as session:
        row = runs.get(session, run_id)
        return {**shapes.run(row), "attempts": [shapes.attempt(each) for each in runs.attempts(session, run_id)]}
