"""A man in the middle: a TCP proxy that keeps every byte that it hands on."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Recorder(socketserver.ThreadingTCPServer):
    """Listens before a server on this machine."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        self.upstream = port
        #: what clients said, and what they were told
        self.said, self.told = bytearray(), bytearray()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server_address[1]}/0"


class _Handler(socketserver.BaseRequestHandler):
    server: Recorder

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as upstream:
            back = threading.Thread(target=_pass, args=(upstream, self.request, self.server.told), daemon=True)
            back.start()
            _pass(self.request, upstream, self.server.said)
            back.join(30)


def _pass(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            kept += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def recorded(port: int) -> Iterator[Recorder]:
    """Give a recorder before this port."""
    with Recorder(port) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join(30)
