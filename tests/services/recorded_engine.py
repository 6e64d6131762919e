"""A recorded Engine: the answers of a real one, given by as many containers as a test wants."""

import http.server
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

#: An entry of GET /containers/json as Engine 20.10.24 gave it, shortened to what is not empty.
_SUMMARY: dict[str, Any] = {
    "Image": "nginx:1.27",
    "ImageID": "sha256:9a4cde0e7f5f",
    "Command": "/docker-entrypoint.sh nginx -g 'daemon off;'",
    "Created": 1_700_000_000,
    "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
    "Labels": {"com.example.team": "shop"},
    "State": "running",
    "Status": "Up 3 hours",
    "HostConfig": {"NetworkMode": "default"},
    "Mounts": [],
}
_VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}


class RecordedEngine(http.server.ThreadingHTTPServer):
    """Answers lists, inspects and versions; has no events and no samples. `asked` counts calls by method and kind."""

    daemon_threads = True

    def __init__(self, count: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()
        self.containers = [{**_SUMMARY, "Id": f"{number:064x}", "Names": [f"/web-{number}"]} for number in range(count)]

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RecordedEngine
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer takes 40 ms

    def do_GET(self) -> None:
        path = re.sub(r"^/v[0-9.]+", "", self.path).partition("?")[0]
        kind = re.sub(r"/[0-9a-f]{64}/", "/ID/", path)
        self.server.asked[kind] += 1
        match kind:
            case "/version":
                self._answer(_VERSION)
            case "/containers/json":
                self._answer(self.server.containers)
            case "/containers/ID/json":
                self._answer({"State": {"StartedAt": "2026-11-21T10:00:00.123456789Z", "Status": "running"}})
            case "/containers/ID/stats":  # of one that goes while its sample is made
                self._answer_nothing()
            case "/events":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.server.over.wait(60)
                self.close_connection = True
            case _:
                self.send_error(404)

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer_nothing(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def engine_of_500() -> Iterator[RecordedEngine]:
    with RecordedEngine(500) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()
