"""The application: routes, who they serve, and how errors are answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from fleet import version
from fleet.api import problems
from fleet.api.callers import KEPT_FOR, Callers
from fleet.api.edge import Edge
from fleet.api.news import News
from fleet.api.plane import Plane
from fleet.api.routes import approvals, audit, health, hosts, principals, pushing, runs, shell, tokens, worker

#: What is served, one module a noun.
NOUNS = (hosts, pushing, runs, approvals, shell, tokens, principals, audit, worker, health)
_ABOUT = """
What the command line does, for programs in any language. Every request is a principal's, by a bearer token that
`fleet principal token` makes; what it pushes is signed by that principal's key and judged by the host.

Errors are `application/problem+json`; `code` is the stable word for programs, `remedy` says what to do next.
"""


def make(plane: Plane, news: News) -> FastAPI:
    """Return the application; it opens and closes what it is given with its own life."""
    callers = Callers(plane)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        news.start()
        sweeping = asyncio.create_task(_sweep(callers))
        try:
            yield
        finally:
            sweeping.cancel()
            news.stop()
            news.join()
            callers.close()
            plane.close()

    app = FastAPI(
        title="Fleet",
        summary="Run work on many Docker hosts through one message broker",
        description=_ABOUT,
        version=version.current(),
        lifespan=life,
        # The pages that FastAPI makes of this load programs from elsewhere; whoever types a token there shows it them.
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
    )
    app.state.plane, app.state.news, app.state.callers = plane, news, callers
    problems.install(app)
    app.add_middleware(Edge)
    for module in NOUNS:
        app.include_router(module.router)
    app.state.routes = [each for module in NOUNS for each in module.router.routes if isinstance(each, APIRoute)]
    # made now, and kept: later it would hold up whoever else asks for something
    _put_nulls_back(app.openapi())
    return app


def _put_nulls_back(described: dict[str, Any]) -> None:
    """Complete the examples of a description: FastAPI leaves out what is null, and so fields that every reply has."""
    for schema in described["components"]["schemas"].values():
        if "examples" in schema:
            required = schema.get("required", ())
            schema["examples"] = [
                {name: example.get(name) for name in schema["properties"] if name in example or name in required}
                for example in schema["examples"]
            ]


async def _sweep(callers: Callers) -> None:
    while True:
        await asyncio.sleep(KEPT_FOR.total_seconds() / 5)
        await run_in_threadpool(callers.sweep)


def _operation_id(route: APIRoute) -> str:
    tag = str(route.tags[0]) if route.tags else "fleet"
    return f"{tag}_{route.name}"
