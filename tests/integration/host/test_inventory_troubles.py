"""The inventory watch when something is away: Engine, broker, or the disk below the outbox."""

import os
import queue
import signal
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import docker
import pytest

from fleet.contracts.containers import Container
from fleet.contracts.reports import Kind
from tests.services.docker import IMAGE
from tests.services.freezing import frozen
from tests.services.private_engine import PrivateEngine
from tests.services.waiting import until
from workers.host.containers.engine import Engine
from workers.host.containers.inventory import InventoryWatch

pytestmark = pytest.mark.docker

#: A full sync never comes by itself within a test.
NEVER = timedelta(hours=1)
PATIENCE = 45


class CountedEngine(Engine):
    """The Engine, counting the calls that the watch makes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        #: ids of containers, in order
        self.inspected: list[str] = []

    def inspect(self, container: str) -> dict[str, Any]:
        self.inspected.append(container)
        return super().inspect(container)


class Away:
    """A place to tell things to, which can be away."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.tried: queue.Queue[Any] = queue.Queue()
        self.taken: queue.Queue[Any] = queue.Queue()

    def take(self, *told: Any) -> None:
        self.tried.put(told)
        if self.away.is_set():
            raise OSError("away")
        self.taken.put(told)


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[CountedEngine]:
    engine = CountedEngine(docker_engine.url)
    yield engine
    engine.close()


@pytest.fixture
def broker() -> Away:
    return Away()


@pytest.fixture
def outbox() -> Away:
    return Away()


@pytest.fixture
def watch(engine: CountedEngine, broker: Away, outbox: Away) -> Iterator[InventoryWatch]:
    watch = InventoryWatch(engine, publish=broker.take, report=outbox.take, interval=NEVER)
    yield watch
    watch.stop()
    watch.stop()
    assert watch.stopped.wait(PATIENCE)


def starts_of(told: tuple[tuple[Container, ...]]) -> dict[str, datetime]:
    return {container.name: container.started for container in told[0] if container.started}


def names_of(told: tuple[tuple[Container, ...]]) -> set[str]:
    return {container.name for container in told[0]}


def test_what_the_broker_did_not_take_is_published_again_without_a_change(
    watch: InventoryWatch, broker: Away, docker_client: docker.DockerClient
) -> None:
    docker_client.containers.create(IMAGE, ["/bin/true"], name="web")
    broker.away.set()
    watch.start()
    broker.tried.get(timeout=PATIENCE)
    broker.away.clear()
    assert names_of(broker.taken.get(timeout=PATIENCE)) == {"web"}


def test_what_could_not_be_reported_is_reported_later_and_published_meanwhile(
    watch: InventoryWatch, broker: Away, outbox: Away, docker_client: docker.DockerClient
) -> None:
    docker_client.containers.create(IMAGE, ["/bin/true"], name="web")
    outbox.away.set()
    watch.start()
    outbox.tried.get(timeout=PATIENCE)
    assert names_of(broker.taken.get(timeout=PATIENCE)) == {"web"}
    outbox.away.clear()
    kind, data = outbox.taken.get(timeout=PATIENCE)
    assert kind is Kind.INVENTORY_SYNCED
    assert [row["name"] for row in data["containers"]] == ["web"]


def test_a_start_is_asked_for_once_and_not_at_each_sync(
    watch: InventoryWatch, engine: CountedEngine, broker: Away, docker_client: docker.DockerClient
) -> None:
    for number in range(3):
        docker_client.containers.run(
            IMAGE, ["/bin/sleep", "300"], name=f"web-{number}", detach=True, stop_signal="SIGKILL"
        )
    watch.start()
    before = starts_of(broker.taken.get(timeout=PATIENCE))

    def asks_nothing() -> bool:
        asked = len(engine.inspected)
        watch.sync_now()
        assert starts_of(broker.taken.get(timeout=PATIENCE)) == before
        return len(engine.inspected) == asked

    until(asks_nothing, "the events are heard, and what is known of starts counts")
    until(lambda: not watch._look.is_set(), "what was asked for is looked up")
    asked = len(engine.inspected)
    for _ in range(3):
        assert asks_nothing()
    docker_client.containers.get("web-1").restart(timeout=1)
    after = before
    while not after["web-1"] > before["web-1"]:
        after = starts_of(broker.taken.get(timeout=PATIENCE))
    # A restart is one to several looks (die, start …), and only the one restarted is asked for.
    assert set(engine.inspected[asked:]) == {docker_client.containers.get("web-1").id}


def test_while_the_engine_is_away_nothing_is_told_and_then_everything(
    docker_engine: PrivateEngine,
    watch: InventoryWatch,
    broker: Away,
    outbox: Away,
    docker_client: docker.DockerClient,
) -> None:
    docker_client.containers.create(IMAGE, ["/bin/true"], name="web")
    os.kill(docker_engine.daemon_pid, signal.SIGKILL)
    docker_engine.await_end()
    try:
        lost = threading.Event()
        watch.start()
        while watch.docker_reachable is None:
            assert not lost.wait(0.02)
        assert watch.docker_reachable is False
        for _ in range(3):
            watch.sync_now()
            assert not watch.stopped.wait(0.3)  # longer than a burst takes to settle
        assert broker.tried.empty()
        assert outbox.tried.empty()
    finally:
        docker_engine.start()
    assert names_of(broker.taken.get(timeout=PATIENCE)) == {"web"}  # by itself: nobody asks for a sync here
    kind, _data = outbox.taken.get(timeout=PATIENCE)
    assert kind is Kind.INVENTORY_SYNCED
    assert watch.docker_reachable is True


def test_a_change_after_the_engines_return_is_heard(
    docker_engine: PrivateEngine, watch: InventoryWatch, broker: Away, docker_client: docker.DockerClient
) -> None:
    watch.start()
    assert names_of(broker.taken.get(timeout=PATIENCE)) == set()
    os.kill(docker_engine.daemon_pid, signal.SIGKILL)
    docker_engine.await_end()
    docker_engine.start()
    docker_client.containers.create(IMAGE, ["/bin/true"], name="first")
    while names_of(broker.taken.get(timeout=PATIENCE)) != {"first"}:
        pass
    docker_client.containers.create(IMAGE, ["/bin/true"], name="second")
    while names_of(broker.taken.get(timeout=PATIENCE)) != {"first", "second"}:
        pass


def test_a_watch_stops_while_the_engine_hangs(
    docker_engine: PrivateEngine, watch: InventoryWatch, broker: Away
) -> None:
    watch.start()
    broker.taken.get(timeout=PATIENCE)
    with frozen(docker_engine.daemon_pid):
        watch.sync_now()
        watch.stop()
        assert watch.stopped.wait(25)  # Docker's own client waits for sixty
