"""The Engine's client and the inventory watch, on a real Engine."""

import gc
import os
import queue
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import docker
import pytest
import redis

from fleet import errors
from fleet.contracts.containers import Container
from fleet.contracts.reports import Kind
from tests.services.docker import IMAGE
from tests.services.freezing import frozen
from tests.services.private_engine import PrivateEngine
from workers.host.containers.engine import Engine
from workers.host.containers.inventory import InventoryWatch
from workers.host.containers.listing import describe

# docker-py leaves sockets of calls that timed out, or of an Engine that was killed, to the garbage collector.
pytestmark = [pytest.mark.docker, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture(autouse=True)
def _collect_garbage() -> Iterator[None]:
    """Let such sockets be collected here, and not in the middle of somebody else's test."""
    yield
    gc.collect()


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[Engine]:
    engine = Engine(docker_engine.url)
    yield engine
    engine.close()


class Told:
    """What an inventory watch says, in order."""

    def __init__(self) -> None:
        self.reports: queue.Queue[tuple[Kind, dict[str, Any]]] = queue.Queue()
        self.published: queue.Queue[tuple[Container, ...]] = queue.Queue()

    def report(self, kind: Kind, data: dict[str, Any]) -> None:
        self.reports.put((kind, data))

    def await_change(self, *, name: str, state: str = "running", timeout: float = 30) -> dict[str, Any]:
        """Return the next reported row of that container in that state; those on the way there may be told, too."""
        deadline = time.monotonic() + timeout
        while True:
            kind, data = self.reports.get(timeout=max(0.01, deadline - time.monotonic()))
            assert kind is Kind.INVENTORY_CHANGED
            for row in data["changed"]:
                if row["name"] == name and row["state"] == state:
                    return dict(row)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watch(engine: Engine, told: Told) -> Iterator[InventoryWatch]:
    """A watch whose full sync is an hour away: what it tells, it tells because of an event."""
    watch = InventoryWatch(engine, publish=told.published.put, report=told.report, interval=timedelta(hours=1))
    watch.start()
    kind, _data = told.reports.get(timeout=30)
    assert kind is Kind.INVENTORY_SYNCED
    yield watch
    watch.stop()
    assert watch.stopped.is_set()


def run(client: docker.DockerClient, name: str, **options: Any) -> Any:
    return client.containers.run(IMAGE, ["/bin/sleep", "300"], name=name, detach=True, stop_signal="SIGKILL", **options)


def test_a_container_can_be_stopped_started_and_restarted(engine: Engine, docker_client: docker.DockerClient) -> None:
    run(docker_client, "web", labels={"app": "shop"}, ports={"80/tcp": 18080})
    first = describe(engine, "web")
    assert first.state == "running"
    assert first.labels == {"app": "shop"}
    assert {port.host_port for port in first.ports} == {18080}
    engine.stop("web", timeout_seconds=1)
    engine.stop("web", timeout_seconds=1)
    assert describe(engine, "web").state == "exited"
    engine.start("web")
    engine.start("web")
    engine.restart("web", timeout_seconds=1)
    again = describe(engine, first.docker_id[:12])
    assert again.docker_id == first.docker_id
    assert again.started is not None
    assert first.started is not None
    assert again.started > first.started


def test_a_container_that_is_not_there_is_a_refusal_with_the_next_step(engine: Engine) -> None:
    with pytest.raises(errors.EngineRefused, match=r"No such container.*fleet ps") as caught:
        engine.restart("nope", timeout_seconds=1)
    assert caught.value.kind == "no_such_container"


def test_an_engine_that_is_not_there_is_said_with_its_address() -> None:
    with pytest.raises(errors.EngineUnavailable, match=r"unix:///nowhere/docker\.sock"):
        Engine("unix:///nowhere/docker.sock").version()


def test_a_hung_engine_costs_ten_seconds_and_no_more(docker_engine: PrivateEngine, engine: Engine) -> None:
    engine.version()
    with frozen(docker_engine.daemon_pid):
        begun = time.monotonic()
        with pytest.raises(errors.EngineUnavailable):
            engine.list_containers()
        assert time.monotonic() - begun < 25  # Docker's own client waits for sixty
    assert engine.list_containers() == []


def test_a_change_is_told_within_a_second_and_a_removal_too(
    watch: InventoryWatch, told: Told, docker_client: docker.DockerClient
) -> None:
    container = run(docker_client, "web")
    begun = time.monotonic()
    row = told.await_change(name="web")
    assert (
        time.monotonic() - begun < 15
    )  # one second is promised; machines are shared, and the next look is an hour away
    assert row["started"] is not None
    container.remove(force=True)
    while True:
        _kind, data = told.reports.get(timeout=30)
        if data["removed"] == [container.id]:
            break
    assert watch.docker_reachable is True


def test_a_restart_is_told_with_its_new_start(
    watch: InventoryWatch, told: Told, docker_client: docker.DockerClient
) -> None:
    container = run(docker_client, "web")
    first = told.await_change(name="web")
    container.restart(timeout=1)
    later = told.await_change(name="web")
    while later["started"] == first["started"] or later["state"] != "running":  # it is "exited" in between
        later = told.await_change(name="web")
    assert later["started"] > first["started"]


def test_what_did_not_change_is_published_again_and_not_reported(
    watch: InventoryWatch, told: Told, docker_client: docker.DockerClient
) -> None:
    run(docker_client, "web")
    told.await_change(name="web")
    while not told.published.empty():
        told.published.get()
    while not told.reports.empty():
        told.reports.get()
    watch.sync_now()
    (container,) = told.published.get(timeout=30)
    assert container.name == "web"
    assert told.reports.empty()


def test_a_broker_that_is_away_does_not_end_the_watch(engine: Engine) -> None:
    tries: queue.Queue[int] = queue.Queue()

    def publish(_containers: tuple[Container, ...]) -> None:
        tries.put(1)
        raise redis.ConnectionError("away")

    watch = InventoryWatch(engine, publish=publish, report=Told().report, interval=timedelta(hours=1))
    watch.start()
    tries.get(timeout=30)
    watch.sync_now()
    tries.get(timeout=30)
    watch.stop()


def test_a_restarted_engine_is_found_again_and_an_absent_one_is_unknown_not_empty(
    docker_engine: PrivateEngine, watch: InventoryWatch, told: Told, docker_client: docker.DockerClient
) -> None:
    run(docker_client, "web")
    told.await_change(name="web")
    os.kill(docker_engine.daemon_pid, signal.SIGKILL)
    docker_engine.await_end()
    while watch.docker_reachable is not False:
        watch.sync_now()
        assert watch.stopped.wait(0.05) is False
    while not told.published.empty():
        told.published.get()
    while not told.reports.empty():
        told.reports.get()
    watch.sync_now()
    docker_engine.start()
    told.await_change(name="web", state="exited")  # killed with its Engine
    assert {c.name for c in told.published.get(timeout=30)} == {"web"}
    assert watch.docker_reachable is True


def test_stopping_twice_or_before_the_start_does_no_harm(engine: Engine) -> None:
    watch = InventoryWatch(engine, publish=Told().published.put, report=Told().report, interval=timedelta(hours=1))
    watch.stop()
    watch.stop()
