"""What the Engine's client makes of an Engine that refuses, hangs, or sends events, on a real Engine."""

import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import pytest

from fleet import errors
from tests.services.docker import IMAGE
from tests.services.freezing import frozen
from tests.services.private_engine import PrivateEngine
from workers.host.containers.engine import Engine
from workers.host.containers.events import EventStream
from workers.host.containers.listing import describe

pytestmark = pytest.mark.docker

#: Far above what an event takes, and far below the time-outs that would hide a missing one, of minutes.
PATIENCE = 45


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[Engine]:
    engine = Engine(docker_engine.url)
    yield engine
    engine.close()


def read(stream: EventStream) -> tuple["queue.Queue[Mapping[str, Any] | None]", threading.Thread]:
    """Read a stream in a thread of its own; None comes when it has ended."""
    heard: queue.Queue[Mapping[str, Any] | None] = queue.Queue()

    def pump() -> None:
        for event in stream:
            heard.put(event)
        heard.put(None)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    return heard, thread


def await_end(heard: "queue.Queue[Mapping[str, Any] | None]", thread: threading.Thread) -> None:
    while heard.get(timeout=PATIENCE) is not None:
        pass
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_beginning_of_two_ids_is_ambiguous(engine: Engine, docker_client: docker.DockerClient) -> None:
    ids: dict[str, str] = {}
    while True:  # 17 ids begin with 16 hexadecimal digits: two of them with the same
        created = docker_client.api.create_container(IMAGE, ["/bin/true"])["Id"]
        if created[0] in ids:
            break
        ids[created[0]] = created
    with pytest.raises(errors.EngineRefused, match="give more of its id") as caught:
        engine.stop(created[0], timeout_seconds=1)
    assert caught.value.kind == "ambiguous"


def test_a_missing_network_is_not_a_missing_container(engine: Engine, docker_client: docker.DockerClient) -> None:
    network = docker_client.networks.create("short-lived")
    host_config = docker_client.api.create_host_config(network_mode="short-lived")
    docker_client.api.create_container(IMAGE, ["/bin/true"], name="web", host_config=host_config)
    network.remove()
    with pytest.raises(errors.EngineRefused, match="short-lived") as caught:
        engine.start("web")
    assert caught.value.kind == "not_found"
    assert engine.reachable is True


def test_a_program_that_is_not_in_the_image_is_a_bad_request(
    engine: Engine, docker_client: docker.DockerClient
) -> None:
    docker_client.api.create_container(IMAGE, ["/bin/absent"], name="web")
    with pytest.raises(errors.EngineRefused, match="/bin/absent") as caught:
        engine.start("web")
    assert caught.value.kind == "bad_request"


def test_a_hung_engine_costs_each_of_many_callers_ten_seconds_at_most(docker_engine: PrivateEngine) -> None:
    engine = Engine(docker_engine.url)  # its first contact is the one that hangs
    taken: queue.Queue[float] = queue.Queue()

    def call() -> None:
        begun = time.monotonic()
        with pytest.raises(errors.EngineUnavailable):
            engine.list_containers()
        taken.put(time.monotonic() - begun)

    with frozen(docker_engine.daemon_pid):
        callers = [threading.Thread(target=call) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
    assert max(taken.get(timeout=1) for _ in callers) < 25  # one after the other they would take 80
    assert engine.reachable is False
    assert engine.list_containers() == []
    assert engine.reachable is True
    engine.close()


def test_an_engine_that_hangs_in_the_middle_of_a_call_ends_it_within_ten_seconds(
    docker_engine: PrivateEngine, engine: Engine, docker_client: docker.DockerClient
) -> None:
    docker_client.containers.run(IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL")
    engine.version()
    with frozen(docker_engine.daemon_pid):
        begun = time.monotonic()
        with pytest.raises(errors.EngineUnavailable):
            engine.start("web")
        assert time.monotonic() - begun < 25  # Docker's own client waits for sixty


def test_a_container_that_ignores_its_stop_signal_is_waited_for_beyond_ten_seconds(
    engine: Engine, docker_client: docker.DockerClient
) -> None:
    docker_client.containers.run(IMAGE, ["/bin/sleep", "300"], name="deaf", detach=True)  # process 1 ignores TERM
    begun = time.monotonic()
    engine.stop("deaf", timeout_seconds=9)
    assert time.monotonic() - begun > 8
    assert describe(engine, "deaf").state == "exited"


def test_events_come_until_another_thread_closes_the_stream(engine: Engine, docker_client: docker.DockerClient) -> None:
    stream = engine.events()
    heard, thread = read(stream)
    container = docker_client.containers.create(IMAGE, ["/bin/true"], name="web")
    event = heard.get(timeout=PATIENCE)
    assert event is not None
    assert (event["Action"], event["Actor"]["ID"]) == ("create", container.id)
    stream.close()
    await_end(heard, thread)
    stream.close()


def test_checks_of_health_make_no_events_and_a_change_of_health_does(
    engine: Engine, docker_client: docker.DockerClient
) -> None:
    stream = engine.events()
    heard, thread = read(stream)
    second = 1_000_000_000
    container = docker_client.containers.run(
        IMAGE,
        ["/bin/sleep", "300"],
        name="web",
        detach=True,
        stop_signal="SIGKILL",
        healthcheck={"test": ["CMD", "/bin/true"], "interval": second, "timeout": 5 * second},
    )
    actions = []
    while not actions or not actions[-1].startswith("health_status"):
        event = heard.get(timeout=PATIENCE)
        assert event is not None
        actions.append(event["Action"])
    assert actions == ["create", "start", "health_status: healthy"]
    assert describe(engine, container.id).health == "healthy"
    stream.close()
    await_end(heard, thread)


def test_a_stream_ends_with_its_engine_and_closing_it_then_does_no_harm(
    docker_engine: PrivateEngine, engine: Engine
) -> None:
    stream = engine.events()
    heard, thread = read(stream)
    os.kill(docker_engine.daemon_pid, signal.SIGKILL)
    docker_engine.await_end()
    try:
        await_end(heard, thread)
        stream.close()
        with pytest.raises(errors.EngineUnavailable):
            engine.events()
    finally:
        docker_engine.start()
    assert engine.list_containers() == []
