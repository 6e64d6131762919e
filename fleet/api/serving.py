"""Serving: the API's process, where it listens, and how it ends."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fleet import errors, logs
from fleet.address import is_loopback
from fleet.api import app
from fleet.api.news import News
from fleet.api.plane import Plane
from fleet.local.signals import asking_to_stop
from fleet.settings import Settings

log = logs.get(__name__)

#: Connections at once; more are answered with 503.
_MOST_CONNECTIONS = 512
#: What a request line and its headers may have together, in bytes.
_LARGEST_HEAD = 32 * 1024
#: How long a connection may take to say what it asks for, and to send the rest of what was answered already.
_HEAD_WITHIN_SECONDS = 10.0
#: How long whoever asked may take to fetch a piece of the answer, mostly the whole.
_FETCHED_WITHIN_SECONDS = 60.0
_STOP_WITHIN_SECONDS = 3


class _Connection(H11Protocol):
    """Uvicorn's, which would wait for ever: who says nothing, or fetches nothing, would take the place of others."""

    _giving_up: asyncio.TimerHandle | None = None
    _cutting_off: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # paused for as long as anything is left to fetch
        self._bound()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._bound()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._bound()

    def pause_writing(self) -> None:
        super().pause_writing()
        # Closing would wait for what is left to be fetched.
        self._cutting_off = self.loop.call_later(_FETCHED_WITHIN_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._go_on_sending()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_time()
        self._go_on_sending()
        super().connection_lost(exc)

    def _bound(self) -> None:
        is_answered = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        if self.conn.their_state is not h11.IDLE and not is_answered:
            self._take_time()
        elif self._giving_up is None and not self.transport.is_closing():
            self._giving_up = self.loop.call_later(_HEAD_WITHIN_SECONDS, self.transport.close)

    def _take_time(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _go_on_sending(self) -> None:
        if self._cutting_off is not None:
            self._cutting_off.cancel()
            self._cutting_off = None


class _Server(uvicorn.Server):
    """Uvicorn, which lets streams end when it is told to stop, instead of waiting for them, and exits with 0 then."""

    def __init__(self, config: uvicorn.Config, news: News) -> None:
        super().__init__(config)
        self._news = news

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take what asks to stop as an order to end well; uvicorn's own would die of it in the end."""
        former = {number: signal.signal(number, self.handle_exit) for number in asking_to_stop()}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._news.stop()
        await super().shutdown(sockets)


def main(settings: Settings, *, config: Path | None, say: Callable[[str], None]) -> int:
    """Serve until told to stop; return the exit code. `say` gets what a person should see, once, and `config` is the
    settings file that was named.

    Raises what `Plane` raises, `errors.SettingsInvalid`, and `errors.LocalFault` for an address that cannot be listened
    on, or a certificate that cannot be used.
    """
    if (settings.api_tls_cert is None) != (settings.api_tls_key is None):
        raise errors.SettingsInvalid(
            "api_tls_cert and api_tls_key belong together, and one of them is not set",
            remedy="set FLEET_API_TLS_CERT and FLEET_API_TLS_KEY, or neither",
        )
    plane = Plane(settings, config=config)
    news = News(plane.broker)
    with _listening(settings) as listener:
        address = f"{settings.api_address}:{listener.getsockname()[1]}"
        scheme = "https" if settings.api_tls_cert else "http"
        if scheme == "http" and not is_loopback(settings.api_address):
            log.warning(
                "api.unencrypted",
                address=address,
                consequence="whoever sees a request has its bearer token",
                next="let a proxy with TLS stand before it, or set FLEET_API_TLS_CERT and FLEET_API_TLS_KEY",
            )
        served = uvicorn.Config(
            app.make(plane, news),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            http=_Connection,
            ws="none",
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            timeout_graceful_shutdown=_STOP_WITHIN_SECONDS,
            ssl_certfile=settings.api_tls_cert,
            ssl_keyfile=settings.api_tls_key,
            proxy_headers=False,
        )
        try:
            served.load()
        except (OSError, ValueError) as exc:
            raise errors.LocalFault(
                f"api: the certificate {settings.api_tls_cert} cannot be used ({exc})",
                remedy="FLEET_API_TLS_CERT and FLEET_API_TLS_KEY are PEM files that belong together",
            ) from exc
        say(f"API: {scheme}://{address}  (its description: /openapi.json)")
        log.info("api.started", address=address, tls=scheme == "https")
        _Server(served, news).run(sockets=[listener])
    log.info("api.stopped")
    return 0


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.api_address else socket.AF_INET
    try:
        listener = socket.create_server((settings.api_address, settings.api_port), family=family, backlog=256)
    except OSError as exc:
        raise errors.LocalFault(
            f"the API cannot listen on {settings.api_address} port {settings.api_port} ({exc.strerror or exc})",
            remedy="choose another: --port N, FLEET_API_PORT, FLEET_API_ADDRESS",
        ) from exc
    # Connections take it over. asyncio sets it by itself only where a socket says its protocol; without it, an answer
    # in two pieces waits 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)  # noqa: FBT003 - socket's own signature
    return listener
