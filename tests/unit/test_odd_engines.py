"""Odd Engines: answers that no Docker Engine of today gives still make containers, or a clear error."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors
from fleet.contracts.containers import Container
from workers.host.containers.engine import Engine
from workers.host.containers.listing import from_summary

#: A few characters that mean something here, and some that hurt elsewhere; all of Unicode takes seconds to set up.
ALPHABET = "ab/() :\x1b\0é☃𝄞"
TEXTS = st.none() | st.text(ALPHABET, max_size=40)
SUMMARIES = st.fixed_dictionaries(
    {"Id": st.text("0123456789abcdef", min_size=64, max_size=64), "Created": st.integers(0, 2**32)},
    optional={
        "Names": st.none() | st.lists(st.text(ALPHABET, max_size=20), max_size=4),
        "Image": TEXTS,
        "State": TEXTS,
        "Status": TEXTS,
        "Health": st.none() | st.fixed_dictionaries({}, optional={"Status": TEXTS}),
        "Labels": st.none() | st.dictionaries(st.text(ALPHABET, max_size=10), TEXTS, max_size=4),
        "Ports": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "PrivatePort": st.integers(0, 65535),
                    "PublicPort": st.integers(0, 65535),
                    "IP": st.sampled_from(["", "0.0.0.0", "::", "fd00::7"]),
                    "Type": st.sampled_from(["tcp", "udp", "sctp"]),
                },
            ),
            max_size=4,
        ),
    },
)


@given(SUMMARIES)
def test_every_summary_becomes_a_container_that_travels(summary: dict[str, Any]) -> None:
    container = from_summary(summary)
    assert Container.model_validate_json(container.model_dump_json()) == container


@pytest.mark.parametrize(("said", "health"), [("none", None), ("healthy", "healthy"), ("starting", "starting")])
def test_health_that_the_engine_says_counts_more_than_the_sentence(said: str, health: str | None) -> None:
    summary = {"Id": "a" * 64, "Created": 0, "Status": "Up 2 hours (unhealthy)", "Health": {"Status": said}}
    assert from_summary(summary).health == health


@pytest.fixture
def somebody_else() -> Iterator[http.server.ThreadingHTTPServer]:
    """A web server that is no Engine; it answers with `body`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body: bytes = self.server.body  # type: ignore[attr-defined]
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '"text"', "7", "null", json.dumps({"ApiVersion": 7})])
def test_somebody_else_at_the_engines_address_is_an_engine_that_does_not_answer(
    somebody_else: http.server.ThreadingHTTPServer, status: int, body: str
) -> None:
    somebody_else.body, somebody_else.status = body.encode(), status  # type: ignore[attr-defined]
    engine = Engine(f"tcp://127.0.0.1:{somebody_else.server_port}")
    with pytest.raises((errors.EngineUnavailable, errors.EngineRefused)):
        engine.version()
    engine.close()


@pytest.mark.parametrize("url", ["", "nonsense", "tcp://host:port", "ssh://host", "npipe://x", "unix://"])
def test_an_address_that_is_none_says_how_one_is_written(url: str) -> None:
    with pytest.raises(errors.EngineUnavailable, match=r"FLEET_DOCKER_URL"):
        Engine(url).version()
