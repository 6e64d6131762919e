"""A link to a server that can lose answers, be cut, and be slow, for tests of what happens in between."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from fleet import address
from fleet.broker import connection
from tests.services.broker import Broker


class Link:
    """A TCP proxy before a server of this machine, most often a broker."""

    def __init__(self, port: int, *, listener: socket.socket | None = None) -> None:
        """Listen on a port of this machine, unless another socket is given."""
        self._upstream_port = port
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._loses: bytes | None = None
        self._down = False
        self._closed = threading.Event()
        #: how many answers were lost
        self.lost = 0
        #: how many bytes of answers it lets through in a second; None for all
        self.bytes_per_second: int | None = None
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose_next_answer_to(self, command: bytes) -> None:
        """Let the next such command through, and cut the connection instead of passing its answer on."""
        self._loses = command

    def cut(self) -> None:
        """Refuse everything until `mend`."""
        self._down = True
        self._drop_all()

    def mend(self) -> None:
        self._down = False

    @property
    def carrying(self) -> bool:
        """Whether a client is connected."""
        return any(thread.is_alive() for thread in self._threads[1:])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._closed.set()
        self._drop_all()
        for thread in list(self._threads):
            thread.join(30)

    def _drop_all(self) -> None:
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            if self._down:
                near.close()
                continue
            thread = threading.Thread(target=self._pass, args=(near,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._upstream_port)) as far:
            with self._lock:
                self._sockets += [near, far]
            back = threading.Thread(target=self._pass_back, args=(near, far), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := near.recv(65536):
                    if self._loses is not None and self._loses in data:
                        self._loses = None
                        with self._lock:
                            self._sockets.remove(far)  # tells `_pass_back` to keep the answer
                    far.sendall(data)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
            back.join(30)

    def _pass_back(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                with self._lock:
                    kept = far not in self._sockets
                if kept:
                    self.lost += 1
                    break
                near.sendall(data)
                if self.bytes_per_second:
                    self._closed.wait(len(data) / self.bytes_per_second)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    """A link to the empty Valkey."""
    opened = Link(broker.port)
    yield opened
    opened.close()


@pytest.fixture
def linked(link: Link) -> Iterator["connection.redis.Redis"]:
    """A client on the other side of the link."""
    with connection.connect(address.parse(link.url), name="linked", connections=4) as client:
        yield client
