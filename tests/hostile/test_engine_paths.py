"""Hostile names: what is asked of the Engine goes to the path that was meant, or nowhere.

The contracts refuse such names. Here they come past the contracts, to the functions that make paths of them.
"""

import http.server
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from urllib.parse import unquote, urlsplit

import docker
import pytest

from fleet import errors
from fleet.contracts.container_output import Logs
from tests.services.docker import IMAGE
from tests.services.private_engine import PrivateEngine
from tests.services.runs import KeptRun
from workers.host.containers import calls, following, images, networks, volumes
from workers.host.containers.engine import Engine

PREY = "postgres"
_BEGINNINGS = ("", "x/", "x/y/", "./", "../", "/", "x:1/", "[::1]:5000/", "%2e%2e/", "x%2f")
_WAYS = (
    "../../containers/",
    "../containers/",
    "../../volumes/",
    "..%2f..%2fcontainers%2f",
    "%2e%2e/%2e%2e/containers/",
)
_ENDS = (PREY, f"{PREY}?force=1&v=1", f"{PREY}#", f"{PREY}/json")
NAMES = (
    *("".join(each) for each in itertools.product(_BEGINNINGS, _WAYS, _ENDS)),
    *("", ".", "..", "/", "x/", "x//y", "x?force=1", "x#y", "%2e%2e", "%252e%252e/%252e%252e/containers/postgres"),
)

#: Each use of a name, and the beginning and the end of its path.
USES: dict[str, tuple[Callable[[Engine, str], object], str, str]] = {
    "image rm": (lambda engine, name: images.remove(engine, name, force=True), "/images/", ""),
    "image": (images.find, "/images/", "/json"),
    "volume": (volumes.look, "/volumes/", ""),
    "volume rm": (lambda engine, name: volumes.remove_unused(engine, [name]), "/volumes/", ""),
    "network": (lambda engine, name: networks.resolve(engine, [name]), "/networks/", ""),
    "container": (lambda engine, name: engine.inspect(name), "/containers/", "/json"),
    "start": (lambda engine, name: engine.start(name), "/containers/", "/start"),
    "stop": (lambda engine, name: engine.stop(name, timeout_seconds=0), "/containers/", "/stop"),
    "restart": (lambda engine, name: engine.restart(name, timeout_seconds=0), "/containers/", "/restart"),
    "wait": (lambda engine, name: engine.wait(name, seconds=1), "/containers/", "/wait"),
    "archive": (lambda engine, name: engine.archive(name, "/etc/passwd", most=100), "/containers/", "/archive"),
    "logs": (
        lambda engine, name: list(
            following.read(engine, name, terminal=False, wish=Logs(container="x"), run=KeptRun())
        ),
        "/containers/",
        "/logs",
    ),
    "remove": (
        lambda engine, name: engine.ask("DELETE", f"/containers/{calls.part(name)}", parameters={"force": "1"}),
        "/containers/",
        "",
    ),
    "raw": (lambda engine, name: engine.ask("DELETE", f"/images/{name}"), "/images/", ""),
}


class Recorder(http.server.ThreadingHTTPServer):
    """An Engine that notes what it is asked, and answers with `status`; redirects go to the container."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.status = 404

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        version = self.path == "/version"
        if not version:
            self.server.asked.append(f"{self.command} {self.path}")
        body = json.dumps({"Version": "20.10.24", "ApiVersion": "1.41"} if version else {"message": "none"}).encode()
        self.send_response(200 if version else self.server.status)
        if 300 <= self.server.status < 400 and not version:
            self.send_header("Location", f"/v1.41/containers/{PREY}?force=1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def led_astray(asked: list[str], beginning: str, end: str) -> list[str]:
    """Return what went elsewhere than to one path of that form; looking for what a 404 was about is fine."""
    found = []
    for each in asked:
        method, _, target = each.partition(" ")
        path = urlsplit(target).path.removeprefix("/v1.41")
        if (method, path) == ("GET", "/containers/json"):
            continue
        decoded = unquote(path)
        right = path.startswith(beginning) and path.endswith(end) and not {"", ".", ".."} & set(decoded.split("/")[1:])
        if not right:
            found.append(each)
    return found


@pytest.mark.parametrize("use", USES)
def test_no_name_leads_to_another_path(recorder: Recorder, use: str) -> None:
    act, beginning, end = USES[use]
    assert len(NAMES) > 100
    with closing(Engine(recorder.url)) as engine:
        for name in NAMES:
            with suppress(errors.EngineRefused, errors.EngineUnavailable):
                act(engine, name)
    assert led_astray(recorder.asked, beginning, end) == []


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("use", USES)
def test_a_redirect_is_a_refusal_and_not_followed(recorder: Recorder, use: str, status: int) -> None:
    act, beginning, end = USES[use]
    recorder.status = status
    with closing(Engine(recorder.url)) as engine:
        with pytest.raises(errors.EngineRefused, match="with a redirect, which is not followed") as caught:
            act(engine, "web")
        assert caught.value.kind == "redirected"
        with pytest.raises(errors.EngineRefused, match="with a redirect"):
            engine.events()
    assert len(recorder.asked) == 2
    assert led_astray(recorder.asked[:1], beginning, end) == []


@pytest.mark.docker
def test_nothing_of_a_real_engine_is_reached_by_a_hundred_names(
    docker_engine: PrivateEngine, docker_client: docker.DockerClient
) -> None:
    prey = docker_client.containers.run(IMAGE, ["sleep", "300"], name=PREY, detach=True)
    docker_client.volumes.create(PREY)
    removing = [act for use, (act, _, _) in USES.items() if use in {"image rm", "volume rm", "remove", "raw", "stop"}]
    with closing(Engine(docker_engine.url)) as engine:
        for name, act in itertools.product(NAMES, removing):
            with suppress(errors.EngineRefused, errors.EngineUnavailable):
                act(engine, name)
    prey.reload()
    assert prey.status == "running"
    assert docker_client.volumes.get(PREY).name == PREY
    assert docker_client.images.get(IMAGE)
    prey.remove(force=True)
    docker_client.volumes.get(PREY).remove()
