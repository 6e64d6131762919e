"""Making containers while the Engine hangs, dies, or has no space: it is said, and nothing is left in the end."""

import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts import containers
from fleet.contracts.reports import Kind
from fleet.settings import Settings
from tests.services.docker import IMAGE, busybox_root, left, require_engine
from tests.services.freezing import freeze
from tests.services.private_engine import PrivateEngine
from tests.services.runs import FakeRun
from tests.services.sessions import Session
from tests.services.waiting import until
from workers.host import settling
from workers.host.containers import making
from workers.host.containers.engine import Engine
from workers.host.containers.undoing import Task, Undoing
from workers.host.settling import Settling
from workers.host.tasks.containers import ContainerTasks
from workers.host.tasks.registry import reconcilers
from workers.host.tasks.wiring import tasks_of

pytestmark = pytest.mark.docker

SPEC = {
    "image": IMAGE,
    "command": ["/bin/sleep", "300"],
    "stop_signal": "SIGKILL",
    "volumes": [{"name": "data", "target": "/data"}],
}


class Troubled(Engine):
    """An Engine to which something happens before one of its calls, once."""

    before: dict[str, Callable[[], Any]]

    def ask(self, method: str, path: str, **options: Any) -> Any:
        for ending in [each for each in self.before if path.endswith(each)]:
            self.before.pop(ending)()
        return super().ask(method, path, **options)


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[Troubled]:
    engine = Troubled(docker_engine.url)
    engine.before = {}
    yield engine
    engine.close()


@pytest.fixture
def wired(engine: Troubled, tmp_path: Path) -> Iterator[tuple[ContainerTasks, Undoing]]:
    """What a session does with containers, with its thread."""
    tasks, undoing = tasks_of(Settings(state_dir=tmp_path), engine, host="edge", secrets=None, interrupted=())
    undoing.start()
    yield tasks, undoing
    undoing.stop()
    undoing.stop()
    assert undoing.stopped.is_set()


@pytest.fixture
def tasks(wired: tuple[ContainerTasks, Undoing]) -> ContainerTasks:
    return wired[0]


def create(tasks: ContainerTasks, **spec: Any) -> Any:
    return tasks.create(containers.CREATE.parse({"spec": {**SPEC, **spec}}), FakeRun())


def await_nothing_left(client: docker.DockerClient, notes: Path) -> None:
    """Wait until all is gone. Notes of it stay for a while longer, in case that something comes late."""
    until(lambda: left(client) == ([], []), "nothing is left", timeout=60)
    assert list(notes.glob("*.json"))


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait two minutes for an Engine that hangs."""
    monkeypatch.setattr(making, "_CREATE_SECONDS", 1.0)


@pytest.mark.usefixtures("_impatient")
def test_what_an_engine_that_hung_does_later_is_undone(
    docker_engine: PrivateEngine,
    docker_client: docker.DockerClient,
    engine: Troubled,
    tasks: ContainerTasks,
    tmp_path: Path,
) -> None:
    engine.before["/containers/create"] = lambda: freeze(docker_engine.daemon_pid)
    try:
        with pytest.raises(errors.EngineUnavailable):
            create(tasks)
    finally:
        os.kill(docker_engine.daemon_pid, signal.SIGCONT)
    await_nothing_left(docker_client, tmp_path / "hosts" / "edge" / "making")


def test_what_was_half_made_when_the_engine_died_is_removed_when_it_is_back(
    docker_engine: PrivateEngine,
    docker_client: docker.DockerClient,
    engine: Troubled,
    tasks: ContainerTasks,
    tmp_path: Path,
) -> None:
    def die() -> None:
        os.kill(docker_engine.daemon_pid, signal.SIGKILL)
        docker_engine.await_end()

    engine.before["/start"] = die
    with pytest.raises(errors.EngineUnavailable):
        create(tasks)
    docker_engine.start()
    await_nothing_left(docker_client, tmp_path / "hosts" / "edge" / "making")


def test_what_a_run_had_made_is_removed_where_the_engine_was_away_when_it_was_settled(
    docker_client: docker.DockerClient,
    engine: Troubled,
    wired: tuple[ContainerTasks, Undoing],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks, undoing = wired
    session = Session(tmp_path / "journal.sqlite")
    claim = session.begun(task=containers.CREATE.name, arguments={"spec": SPEC})
    undoing.begin(Task(claim.run_id, "web"))
    docker_client.containers.create(IMAGE, ["/bin/true"], name="web", labels={"fleet.run": claim.run_id})
    docker_client.volumes.create("data", labels={"fleet.run": claim.run_id})
    there = engine.url
    engine.url = "unix:///nonexistent.sock"
    monkeypatch.setattr(settling, "_ENGINE_BACK_WITHIN", timedelta())
    Settling(
        session.endings,
        reconcilers(tasks),
        broker_clock=session.time,
        stopping=threading.Event(),
        on_abandoned=undoing.abandoned,
        kept=lambda _run, _attempt: b"",
        mask=str,
    ).by_contract(claim)
    assert session.kinds(claim.run_id)[-1] is Kind.RUN_UNKNOWN
    engine.url = there
    await_nothing_left(docker_client, tmp_path / "hosts" / "edge" / "making")
    session.close()


def test_a_run_begins_while_the_engine_is_waited_for_about_another(
    engine: Troubled, wired: tuple[ContainerTasks, Undoing], tmp_path: Path
) -> None:
    _tasks, undoing = wired
    asked, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        assert go_on.wait(60)

    engine.before["/containers/json"] = hang
    undoing.later(Task("edge:1", "one"))
    assert asked.wait(60)
    undoing.begin(Task("edge:2", "two"))  # would wait for ever
    undoing.done("edge:2")
    beginning = threading.Thread(target=undoing.begin, args=(Task("edge:1", "one"),))
    beginning.start()
    assert not list((tmp_path / "hosts" / "edge" / "making").glob("1.json"))
    go_on.set()
    beginning.join(60)
    assert not beginning.is_alive()
    undoing.done("edge:1")


@pytest.fixture
def small_engine(tmp_path: Path) -> Iterator[PrivateEngine]:
    """An Engine whose disk has 64 MiB."""
    require_engine()
    directory = Path("/tmp") / f"fleet-small-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    data = directory / "data"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", data], check=True)
    engine = PrivateEngine(directory)
    try:
        engine.start()
        client = engine.client()
        client.api.import_image_from_data(busybox_root(), repository=IMAGE.partition(":")[0], tag="latest")
        client.close()
        yield engine
    finally:
        engine.end()
        subprocess.run(["umount", "--lazy", data], check=True)
        engine.remove()


def test_a_full_disk_is_said_to_be_full_and_nothing_is_left(small_engine: PrivateEngine, tmp_path: Path) -> None:
    engine, client = Engine(small_engine.url), small_engine.client()
    tasks, _undoing = tasks_of(Settings(state_dir=tmp_path), engine, host="edge", secrets=None, interrupted=())
    fill = Path(small_engine.url.removeprefix("unix://")).with_name("data") / "fill"
    subprocess.run(["dd", "if=/dev/zero", f"of={fill}", "bs=4k"], check=False, capture_output=True)  # until it is full
    with pytest.raises(errors.EngineRefused, match="free some space") as caught:
        create(tasks, volumes=[])
    assert caught.value.kind == "no_space"
    with pytest.raises(errors.EngineRefused) as caught:
        create(tasks)
    assert caught.value.kind == "no_space"
    assert left(client) == ([], [])
    fill.unlink()
    assert create(tasks).container.state == "running"
    client.close()
    engine.close()
