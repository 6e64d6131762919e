"""Waiting: for the end of a run, or for what is recorded of it, without holding a thread."""

import time
from collections.abc import AsyncIterator, Callable

from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from fleet import audit
from fleet.api.news import News
from fleet.api.plane import Found, Plane
from fleet.models import AuditEvent

#: Events that are read at once.
_PAGE = 500


async def until(
    plane: Plane,
    news: News,
    run_id: str,
    look: Callable[[Session], Found | None],
    *,
    principal: str,
    seconds: float,
) -> Found | None:
    """Return what `look` finds in the database, as soon as it does; None where it has not within the time."""
    ends = time.monotonic() + seconds
    found = await run_in_threadpool(plane.look, look)
    if found is not None or seconds <= 0:
        return found
    with news.about(run_id, principal=principal) as event:
        while True:
            found = await run_in_threadpool(plane.look, look)
            left = ends - time.monotonic()
            if found is not None or left <= 0 or news.is_over:
                return found
            await news.next(event, seconds=left)


async def events(
    plane: Plane, news: News, run_id: str, *, principal: str, after: int, is_over: Callable[[Session], bool]
) -> AsyncIterator[AuditEvent | None]:
    """Yield what is recorded of a run, in order, until `is_over` says that nothing more comes; None now and then."""

    def page(session: Session) -> list[AuditEvent]:
        return audit.events(session, run=run_id, after_id=after, limit=_PAGE)

    with news.about(run_id, principal=principal) as event:
        while not news.is_over:
            # looked at before: what is recorded in between comes with the next look
            over = await run_in_threadpool(plane.look, is_over)
            found = await run_in_threadpool(plane.look, page)
            for each in found:
                after = each.id or after
                yield each
            if len(found) == _PAGE:
                continue
            if over:
                return
            yield None
            await news.next(event, seconds=60)
