"""Edge: what surrounds every request: whether it is read, what every answer says to browsers, and a line of log.

Requests are logged by their route, never by path or query: what is in those, somebody made up.
"""

import time
from collections.abc import Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet import bearer, logs
from fleet.api import problems
from fleet.api.intake import LARGEST_BODY, Intake, TooLarge, TooMuch, announced_bytes

log = logs.get(__name__)

#: Requests at once; more are answered with 503, but for those about health.
MOST_REQUESTS = 384
#: An answer is data, for this caller, and nothing of it is to be run.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


class Edge:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._intake = Intake()
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                message = {**message, "headers": [*message["headers"], *(h for h in _HEADERS if h[0] not in present)]}
            await send(message)

        self._requests += 1
        try:
            if refused := self._refusal(scope):
                await refused(scope, receive, send_with_headers)
            else:
                with self._intake.bounded(receive) as bounded:
                    await self._app(scope, bounded, send_with_headers)
        except Exception:
            log.exception("request.crashed", route=_route(scope))
            raise
        finally:
            self._requests -= 1
            _tell(scope, status=status, seconds=time.monotonic() - began)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return what is answered before anything of a request is read; None where it is taken."""
        if self._requests > MOST_REQUESTS and not scope["path"].startswith("/health"):
            return problems.of_http(TooMuch())
        headers: dict[bytes, bytes] = dict(scope["headers"])
        announced = announced_bytes(headers)
        if announced is not None and announced > LARGEST_BODY:
            return problems.of_http(TooLarge())
        # What nobody could be known by makes a body not worth reading.
        is_unknown = announced != 0 and scope["path"].startswith("/api/") and not _bears_token(headers)
        return problems.of(bearer.unknown()) if is_unknown else None


def _bears_token(headers: Mapping[bytes, bytes]) -> bool:
    """Say whether a request shows what could be a bearer token."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return scheme.lower() == "bearer" and bearer.id_of(token.strip()) is not None


def _tell(scope: Scope, *, status: int, seconds: float) -> None:
    route = _route(scope)
    said: dict[str, Any] = {"route": route, "method": scope["method"], "status": status}
    caller = scope.get("state", {}).get("caller")
    if caller is not None:
        said |= {"principal": caller.name, **caller.subject}
    emit = log.debug if route.startswith("/health") else log.info
    emit("request.answered", **said, seconds=round(seconds, 4))


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return route.path if isinstance(route, APIRoute) else "none"
