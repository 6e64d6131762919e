"""What anybody may take of the API without being known: so many bytes, for so long, and never all the room."""

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fleet.api import edge, intake, problems, serving
from tests.services.waiting import until

BIG = 16 * 1024 * 1024
#: It looks like one, and nobody here asks whose it is.
TOKEN = f"fleetapi.{secrets.token_hex(8)}.{secrets.token_urlsafe(32)}"


@dataclass
class Served:
    port: int
    #: bodies that were read to their end
    read: list[int]

    def connect(self, text: str = "") -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        opened.sendall(text.encode())
        return opened

    def ask(self, method: str = "GET", path: str = "/health", **more: Any) -> requests.Response:
        return requests.request(method, f"http://127.0.0.1:{self.port}{path}", timeout=60, **more)

    def is_well(self) -> bool:
        return self.ask().status_code == 200


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    """An application behind the API's edge and connections, with other bounds."""
    with ExitStack() as stack:

        def serve(*, most_connections: int = 64, **bounds: Any) -> Served:
            for name, value in bounds.items():
                module: Any = next(each for each in (edge, intake, serving) if hasattr(each, name))
                monkeypatch.setattr(module, name, value)
            read: list[int] = []

            async def take(request: Request) -> Response:
                read.append(len(await request.body()))
                return PlainTextResponse("taken")

            async def well(_: Request) -> Response:
                return PlainTextResponse("well")

            async def big(_: Request) -> Response:
                return PlainTextResponse("x" * BIG)

            app = Starlette(
                routes=[Route("/api/take", take, methods=["POST"]), Route("/health", well), Route("/api/big", big)],
                middleware=[Middleware(edge.Edge)],
            )
            problems.install(app)  # type: ignore[arg-type] - what it asks of one is Starlette's
            config = uvicorn.Config(
                app, http=serving._Connection, log_config=None, access_log=False, limit_concurrency=most_connections
            )
            server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})

            def stop() -> None:
                server.should_exit = server.force_exit = True
                thread.join(30)
                listener.close()

            thread.start()
            stack.callback(stop)
            served = Served(listener.getsockname()[1], read)
            until(lambda: server.started, "it is served")
            return served

        yield serve


def head(length: int, *, token: str | None = TOKEN, path: str = "/api/take") -> str:
    known = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{known}Content-Length: {length}\r\n\r\n"


def test_a_body_has_so_long_from_its_first_byte_to_its_last(serve: Callable[..., Served]) -> None:
    served = serve(BODY_WITHIN_SECONDS=1.5)
    with closing(served.connect(head(1000))) as slow:
        slow.settimeout(0.2)
        answer = b""
        for _ in range(100):  # a byte now and then, each of them soon after the one before
            slow.sendall(b"x")
            try:
                answer = slow.recv(4096)
            except TimeoutError:
                continue
            break
        assert answer.startswith(b"HTTP/1.1 408 ")
    assert not served.read


def test_whoever_shows_no_token_is_refused_before_anything_is_read(serve: Callable[..., Served]) -> None:
    served = serve(_HEAD_WITHIN_SECONDS=1.0)
    for token in (None, "fleetapi.short", TOKEN[:-1]):
        with closing(served.connect(head(1000, token=token))) as opened:
            assert opened.recv(4096).startswith(b"HTTP/1.1 401 ")
            opened.sendall(b"x" * 10)
            while opened.recv(4096):  # the problem itself; then it is hung up on, though the body never ends
                continue
    assert not served.read
    known = {"Authorization": f"Bearer {TOKEN}"}
    assert served.ask("POST", "/api/take", data=b"x" * 10, headers=known).text == "taken"
    assert served.ask("POST", "/api/take", data=b"x" * 10).json()["code"] == "unauthenticated"
    assert served.read == [10]


def test_of_all_bodies_together_so_much_is_held(serve: Callable[..., Served]) -> None:
    served = serve(MOST_HELD=4000)
    known = {"Authorization": f"Bearer {TOKEN}"}
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(served.connect(head(2000) + "x" * 1000)))
        until(
            lambda: served.ask("POST", "/api/take", data=b"x" * 2000, headers=known).status_code == 503,
            "what they have sent is held",
        )
        assert served.ask("POST", "/api/take", data=b"x" * 500, headers=known).text == "taken"
    until(
        lambda: served.ask("POST", "/api/take", data=b"x" * 2000, headers=known).status_code == 200,
        "what nobody sends any more is let go of",
    )


def test_while_many_requests_are_under_way_health_is_answered_all_the_same(serve: Callable[..., Served]) -> None:
    served = serve(MOST_REQUESTS=8)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(closing(served.connect(head(2000))))
        until(lambda: served.ask("GET", "/api/nothing").status_code == 503, "there is no room")
        refused = served.ask("GET", "/api/nothing")
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("service_unavailable", "5")
        assert served.is_well()
    until(lambda: served.ask("GET", "/api/nothing").status_code == 404, "there is room again")


def test_an_answer_that_nobody_fetches_is_not_kept_for_ever(serve: Callable[..., Served]) -> None:
    served = serve(_FETCHED_WITHIN_SECONDS=1.0, most_connections=8)
    with ExitStack() as stack:
        for _ in range(8):
            opened = socket.socket()
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.connect(("127.0.0.1", served.port))
            stack.enter_context(closing(opened))
            opened.sendall(b"GET /api/big HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
        until(served.is_well, "there is room again, though they hold on")
    assert len(served.ask("GET", "/api/big").content) == BIG
