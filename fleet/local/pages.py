"""Pages: a few read-only pages over HTTP, such that nobody who reaches the port can harm the process behind it.

At most eight connections at once, each in a thread, each with five seconds to ask and five to take the answer, and a
request of 8 KiB at most. Who comes when all places are taken gets the place of whoever has been sending a request
for longest: a crowd of slow clients keeps nobody out who asks at once. The protocol is the standard library's.
"""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from fleet import logs

log = logs.get(__name__)

MOST_CONNECTIONS = 8
LONGEST_SECONDS = 5.0
LARGEST_REQUEST = 8192
#: Connections that the kernel keeps for us beside those.
_BACKLOG = 16
#: After a failed accept (no descriptor left), so that it is not tried in a circle.
_PAUSE_SECONDS = 0.2
_METHODS = ("GET", "HEAD")


@dataclass(frozen=True, kw_only=True)
class Page:
    """An answer."""

    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK


Pages = Mapping[str, Callable[[], Page]]


class _TooLargeError(Exception):
    pass


class _Reading(io.RawIOBase):
    """What a client sends, up to a number of bytes and a moment (monotonic)."""

    def __init__(self, connection: socket.socket, *, ends: float) -> None:
        self._connection = connection
        self._ends = ends
        self._left = LARGEST_REQUEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise _TooLargeError
        _limit(self._connection, self._ends)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class _Writing(io.RawIOBase):
    """What a client is sent, within a time that begins with the answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ends: float | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._ends = self._ends or time.monotonic() + LONGEST_SECONDS
        _limit(self._connection, self._ends)
        self._connection.sendall(data)
        return len(data)


def _limit(connection: socket.socket, ends: float) -> None:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


class _Handler(WSGIRequestHandler):
    server_version = "fleet"
    sys_version = ""
    server: "_Server"

    def setup(self) -> None:
        ends = time.monotonic() + LONGEST_SECONDS
        self.connection = self.request
        self.rfile = io.BufferedReader(_Reading(self.connection, ends=ends), LARGEST_REQUEST)
        self.wfile = _Writing(self.connection)  # type: ignore[assignment]  # all that is asked of it is write
        # `send_error` asks for them, also before there is a request.
        self.requestline = self.request_version = self.command = ""

    def handle(self) -> None:
        try:
            super().handle()
        except _TooLargeError:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def parse_request(self) -> bool:
        read = super().parse_request()
        self.server.has_asked(self.connection)
        return read

    def get_stderr(self) -> io.StringIO:
        """Return where tracebacks of broken connections go."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's
        """Log nothing: whoever can connect would write the log."""


class _Server(WSGIServer):
    request_queue_size = _BACKLOG

    def __init__(self, where: tuple[str, int], *, app: Callable[..., Iterable[bytes]]) -> None:
        self.address_family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._lock = threading.Lock()
        #: connections that have not sent their request yet, the oldest first
        self._asking: dict[socket.socket, None] = {}
        self._closing = threading.Event()
        super().__init__(where, _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        """Bind, without asking the resolver who we are, as the standard library's would."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def run(self) -> None:
        """Accept until `end`."""
        while not self._closing.is_set():
            try:
                connection, _ = self.get_request()
            except OSError:
                self._closing.wait(_PAUSE_SECONDS)
                continue
            self._admit(connection)

    def end(self) -> None:
        """Accept nothing any more, and cut who is connected."""
        self._closing.set()
        _cut(self.socket)  # which ends the accept in hand
        with self._lock:
            for connection in self._asking:
                _cut(connection)
        self.server_close()

    def has_asked(self, connection: socket.socket) -> None:
        """Take note that a request has come: the answer is ours to give from now on."""
        with self._lock:
            self._asking.pop(connection, None)

    def _admit(self, connection: socket.socket) -> None:
        if not self._places.acquire(blocking=False):
            with self._lock:
                if self._asking:
                    _cut(next(iter(self._asking)))
            if not self._places.acquire(timeout=1.0):  # all of them are being answered
                self.shutdown_request(connection)
                return
        with self._lock:
            self._asking[connection] = None
        try:
            threading.Thread(target=self._answer, args=(connection,), name="pages", daemon=True).start()
        except RuntimeError:  # no thread can be had
            self._leave(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            self.finish_request(connection, connection.getpeername())
        except (OSError, _TooLargeError, ValueError):
            pass  # it has gone, was too slow, or speaks no HTTP
        finally:
            self._leave(connection)

    def _leave(self, connection: socket.socket) -> None:
        self.has_asked(connection)
        self.shutdown_request(connection)
        self._places.release()


class PageServer:
    """Serves pages from `start` to `stop`. Raises OSError where the address cannot be listened on."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self._pages = pages
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self._server = _Server((str(found[0][4][0]), port), app=self._app)
        self._thread = threading.Thread(target=self._server.run, name="pages", daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End at once; a second call does nothing."""
        self._server.end()
        if self._thread.is_alive():
            self._thread.join(2)

    def _app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        page, extra = self._find(str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"]))
        headers = [
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *extra,
        ]
        start_response(f"{page.status.value} {page.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page.body]

    def _find(self, method: str, path: str) -> tuple[Page, list[tuple[str, str]]]:
        make = self._pages.get(path)
        if make is None:
            return _plain(HTTPStatus.NOT_FOUND), []
        if method not in _METHODS:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED), [("Allow", ", ".join(_METHODS))]
        try:
            return make(), []
        except Exception:
            log.exception("page.failed", path=path)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR), []


def _plain(status: HTTPStatus) -> Page:
    return Page(body=f"{status.phrase}\n".encode(), content_type="text/plain; charset=utf-8", status=status)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has gone already
        return
