"""`/api/approvals`: runs that wait for somebody else's word, and the answers."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from fleet import answers, approvals, audit, errors, parked, records, runs, sessions, shapes
from fleet.answers import Says
from fleet.api import replies, sight, waiting, words
from fleet.api.access import Anybody
from fleet.api.callers import Caller
from fleet.api.given import TheNews, ThePlane
from fleet.api.news import News
from fleet.api.plane import Plane
from fleet.models import Approval, AuditEvent
from fleet.parked import Parked

router = APIRouter(prefix="/api/approvals", tags=["approvals"])

#: How long the host's answer is waited for.
_ANSWERED_WITHIN_SECONDS = 10.0


@router.get("", response_model=list[replies.Approval])
def listing(caller: Anybody, plane: ThePlane, query: Annotated[words.ApprovalQuery, Query()]) -> list[dict[str, Any]]:
    """List runs that wait for approval: what you have asked for, and what others have on hosts that you look after."""
    state = None if query.state == "all" else query.state
    with plane.read() as session:
        visible = sight.of_approvals(caller)
        found = approvals.listing(session, state=state, host=query.host, sight=visible, limit=query.limit)
        commands = sessions.find(session, [row.run_id for row, _ in found])
        return [
            shapes.approval(row, run, request=approvals.request(row, run), session=commands.get(row.run_id))
            for row, run in found
        ]


@router.get("/{run}", response_model=replies.ApprovalWithRecord)
def show(caller: Anybody, plane: ThePlane, run: words.RunId) -> dict[str, Any]:
    """Show who asks for what exactly, where and why, with the record of whoever asks. `digest` says what you saw."""
    with plane.read() as session:
        return _record(session, _seen(session, caller, run))


@router.post("/{run}/approve", response_model=replies.Approval)
async def approve(
    caller: Anybody, plane: ThePlane, news: TheNews, run: words.RunId, body: words.Approval | None = None
) -> dict[str, Any]:
    """Let a run begin, once, that somebody else has asked for.

    The host checks it: who you are, that your credential lets you approve that, and that the request is the one that
    its principal signed. One's own is refused (403 `own_request`).
    """
    return await answer(plane, news, caller, run, says="approve", word=body or words.Approval())


@router.post("/{run}/deny", response_model=replies.Approval)
async def deny(
    caller: Anybody, plane: ThePlane, news: TheNews, run: words.RunId, body: words.Decision | None = None
) -> dict[str, Any]:
    """End a run that waits for approval; it never begins."""
    return await answer(plane, news, caller, run, says="deny", word=body or words.Decision())


async def answer(
    plane: Plane, news: News, caller: Caller, run: str, *, says: Says, word: words.Decision
) -> dict[str, Any]:
    """Say it to the host, and return the approval as its host has taken it.

    Raises `errors.TaskRejected` with the host's reason where it does not, `errors.TimedOut` where it has not answered
    within ten seconds; it does so when it is back.
    """
    news.require_room(caller.name)
    asked, newest = await run_in_threadpool(_asked, plane, caller, run)
    if word.digest is not None and word.digest != asked.digest:
        raise errors.Refused(
            f"what waits as {asked.run_id} is not what you were shown", remedy="look at it again, and answer for that"
        )
    await run_in_threadpool(_say, caller, asked, says, word)

    def look(session: Session) -> AuditEvent | None:
        found = audit.events(session, run=asked.run_id, after_id=newest, limit=1000)
        return next((each for each in found if answers.concerns(each.event, each.data, caller.name)), None)

    said = await waiting.until(plane, news, asked.run_id, look, principal=caller.name, seconds=_ANSWERED_WITHIN_SECONDS)
    if said is None:
        raise errors.TimedOut(
            f"{asked.host} has not answered yet", remedy=f"GET /api/approvals/{asked.run_id} tells when it has"
        )
    answers.require_taken(said.event, said.data, asked, says)
    return await run_in_threadpool(plane.look, lambda session: _record(session, approvals.get(session, asked.run_id)))


def _asked(plane: Plane, caller: Caller, run: str) -> tuple[Parked, int]:
    """Return the request as its principal signed it, and the newest audit event of its run."""
    with plane.read() as session:
        row = _seen(session, caller, run)
        found = parked.waiting(session, row.run_id)
        newest = audit.events(session, run=row.run_id, limit=1)
    caller.fleet.dispatcher.members()  # the fleet's newest word: a former key must not vouch for anything
    return found.checked(caller.fleet.dispatcher.signer.trust), (newest[-1].id or 0) if newest else 0


def _say(caller: Caller, asked: Parked, says: Says, word: words.Decision) -> None:
    if isinstance(word, words.Approval) and says == "approve":
        within = max(0.0, asked.not_before - time.time()) + word.within_seconds
        caller.fleet.approve(asked.run_id, digest=asked.digest, reason=word.reason, run_within=within)
    else:
        caller.fleet.deny(asked.run_id, digest=asked.digest, reason=word.reason)


def _seen(session: Session, caller: Caller, run: str) -> Approval:
    """Return the approval of a run that this caller sees; raise `errors.NotFound` for all others."""
    unknown = errors.NotFound(f"no run {run!r} waits, or waited, for approval", remedy="GET /api/approvals lists them")
    try:
        row = approvals.get(session, runs.named(session, run).id)
    except errors.UsageError:
        raise unknown from None
    visible = sight.of_approvals(caller)
    if visible and not visible.has(session, host=row.host_id, submitted_by=row.principal):
        raise unknown
    caller.asks_about(host=row.host_id, run=row.run_id)
    return row


def _record(session: Session, row: Approval) -> dict[str, Any]:
    run = runs.get(session, row.run_id)
    command = sessions.find(session, [row.run_id]).get(row.run_id)
    shown = shapes.approval(row, run, request=approvals.request(row, run), session=command)
    return {**shown, "record": records.of(session, row.principal)}
