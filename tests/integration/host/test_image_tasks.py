"""The image contracts, carried out by this host's functions, on a real Engine and a real registry."""

import base64
import json
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from pydantic import ValidationError

from fleet import clock, errors
from fleet.contracts.images import PullEntry, PullImage, PullPolicy, RemoveImage
from tests.services.docker import IMAGE
from tests.services.freezing import frozen
from tests.services.ports import free_port
from tests.services.private_engine import PrivateEngine
from tests.services.registry import Registry
from tests.services.runs import KeptRun
from tests.services.waiting import until
from workers.host.containers import images
from workers.host.containers.engine import Engine
from workers.host.tasks.images import ImageTasks

pytestmark = pytest.mark.docker


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[Engine]:
    made = Engine(docker_engine.url)
    yield made
    made.close()


@pytest.fixture
def tasks(engine: Engine) -> ImageTasks:
    return ImageTasks(engine)


@pytest.fixture
def run() -> KeptRun:
    return KeptRun()


def refusal(tasks: ImageTasks, image: str, **more: Any) -> errors.EngineRefused:
    with pytest.raises(errors.EngineRefused) as caught:
        tasks.pull(PullImage(image=image, **more), KeptRun())
    return caught.value


class Pull:
    """A pull that is under way in a thread of its own."""

    def __init__(self, tasks: ImageTasks, image: str, run: KeptRun) -> None:
        self.error: BaseException | None = None

        def work() -> None:
            try:
                tasks.pull(PullImage(image=image), run)
            except BaseException as exc:  # noqa: BLE001 - the test looks at it
                self.error = exc

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def raised(self) -> BaseException:
        self.thread.join(30)
        assert not self.thread.is_alive()
        assert self.error is not None
        return self.error


def test_an_image_is_pulled_with_word_of_every_layer_and_a_second_time_it_is_there(
    tasks: ImageTasks, run: KeptRun, registry: Registry, docker_client: docker.DockerClient
) -> None:
    name = registry.fill(docker_client, "shop/web", layers=3)
    pulled = tasks.pull(PullImage(image=name), run)
    assert pulled.changed
    assert pulled.id == docker_client.images.get(name).id
    assert pulled.digest is not None
    assert pulled.digest.startswith(f"{name}@sha256:")
    assert pulled.size_bytes > 2 * 2**20
    entries = [PullEntry.model_validate(data) for kind, data in run.entries if kind == "pull"]
    assert len(entries) == len(run.entries) > 0
    assert [entry.percent for entry in entries] == sorted(entry.percent for entry in entries)
    assert entries[-1].percent == 100.0
    assert {layer.state for layer in entries[-1].layers} <= {"done", "there"}
    assert [layer.state for layer in entries[-1].layers].count("done") >= 2
    assert run.steps[0] == ("pulling", 0)
    assert run.steps[-1] == ("pulling", 100.0)
    assert [step for step, _ in run.steps] == ["pulling"] * len(run.steps)

    again = tasks.pull(PullImage(image=pulled.digest), KeptRun())
    assert not again.changed
    assert again.id == pulled.id


def test_what_cannot_be_pulled_is_an_error_that_says_why_and_what_to_do(
    tasks: ImageTasks, registry: Registry, locked_registry: Registry, docker_client: docker.DockerClient
) -> None:
    name = registry.fill(docker_client, "there", layers=1)
    found = refusal(tasks, f"{registry.address}/not/there:1")
    assert found.kind == "no_such_image"
    assert "check name and tag" in found.remedy
    assert refusal(tasks, f"{name}:other").kind == "no_such_image"
    assert refusal(tasks, f"127.0.0.1:{free_port()}/x").kind == "registry_unreachable"
    unauthorized = refusal(tasks, f"{locked_registry.address}/x")
    assert unauthorized.kind == "unauthorized"
    assert "docker login" in unauthorized.remedy
    for wrong in (f"{registry.address}/UPPER/case", "a//b"):
        with pytest.raises(ValidationError, match="is no image"):
            PullImage(image=wrong)


def test_a_host_that_is_logged_in_pulls_as_that_user(
    locked_registry: Registry,
    docker_client: docker.DockerClient,
    docker_engine: PrivateEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = locked_registry.fill(docker_client, "private")
    login = base64.b64encode(":".join(locked_registry.login().values()).encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {locked_registry.address: {"auth": login}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    engine = Engine(docker_engine.url)
    assert ImageTasks(engine).pull(PullImage(image=name), KeptRun()).changed
    engine.close()


def test_a_pull_that_is_cancelled_ends_at_once_and_so_does_the_download(
    tasks: ImageTasks, run: KeptRun, registry: Registry, docker_client: docker.DockerClient, engine: Engine
) -> None:
    name = registry.fill(docker_client, "large", megabytes=8)
    registry.link.bytes_per_second = 200_000
    pull = Pull(tasks, name, run)
    until(lambda: any(0 < data["percent"] < 100 for _, data in run.entries), "it is under way")
    assert registry.link.carrying
    run.end()
    assert isinstance(pull.raised(), errors.TaskCancelled)
    until(lambda: not registry.link.carrying, "the Engine has let go of the registry")
    assert images.find(engine, name) is None
    registry.link.bytes_per_second = None
    assert tasks.pull(PullImage(image=name), KeptRun()).changed


def test_an_engine_that_hangs_ends_the_pull_in_time(
    tasks: ImageTasks,
    registry: Registry,
    docker_client: docker.DockerClient,
    docker_engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "PULL_SILENCE_SECONDS", 3.0)
    run = KeptRun()
    name = registry.fill(docker_client, "large", megabytes=8)
    registry.link.bytes_per_second = 200_000
    pull = Pull(tasks, name, run)
    until(lambda: run.entries, "it is under way")
    with frozen(docker_engine.daemon_pid):
        assert isinstance(pull.raised(), errors.EngineUnavailable)


def test_a_full_disk_ends_the_pull_and_says_so(
    registry: Registry, docker_client: docker.DockerClient, docker_engine: PrivateEngine
) -> None:
    name = registry.fill(docker_client, "large", megabytes=80)
    small = PrivateEngine(Path("/tmp") / f"fleet-engine-{uuid.uuid4().hex[:6]}")
    data = small.directory / "data"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", data], check=True)
    try:
        small.start()
        link = registry.link_for(small)
        engine = Engine(small.url)
        there = f"127.0.0.1:{link.port}/{name.partition('/')[2]}"
        found = refusal(ImageTasks(engine), there)
        assert found.kind == "no_space"
        assert "make room" in found.remedy
        assert images.find(engine, there) is None
        engine.close()
    finally:
        small.end()
        subprocess.run(["umount", data], check=True)
        shutil.rmtree(small.directory)


def test_an_image_is_there_by_the_policy_of_whoever_needs_it(
    engine: Engine, run: KeptRun, registry: Registry, docker_client: docker.DockerClient
) -> None:
    name = registry.fill(docker_client, "tool")
    with pytest.raises(errors.EngineRefused, match="is not to be pulled") as caught:
        images.ensure(engine, name, PullPolicy.NEVER, run)
    assert caught.value.kind == "no_such_image"
    first = images.ensure(engine, name, PullPolicy.MISSING, run)
    assert run.entries
    run.entries.clear()
    assert images.ensure(engine, name, PullPolicy.MISSING, run) == first
    assert images.ensure(engine, name, PullPolicy.NEVER, run) == first
    assert not run.entries
    assert images.ensure(engine, name, PullPolicy.ALWAYS, run) == first
    registry.link.cut()
    assert images.ensure(engine, name, PullPolicy.MISSING, run) == first
    with pytest.raises(errors.EngineRefused) as caught:
        images.ensure(engine, name, PullPolicy.ALWAYS, run)
    assert caught.value.kind == "registry_unreachable"


def test_images_are_listed_and_removed_unless_something_needs_them(
    tasks: ImageTasks, run: KeptRun, docker_client: docker.DockerClient
) -> None:
    docker_client.api.tag(IMAGE, "fleet-test/other", "1")
    listed = {tag: image for image in tasks.list(object(), run).images for tag in image.tags}  # type: ignore[arg-type]
    assert listed[IMAGE] == listed["fleet-test/other:1"]
    assert listed[IMAGE].id == docker_client.images.get(IMAGE).id
    assert listed[IMAGE].size_bytes > 0
    assert tasks.remove(RemoveImage(image="fleet-test/other:1"), run).untagged == ("fleet-test/other:1",)

    container_id = docker_client.api.create_container(IMAGE, ["/bin/true"])["Id"]
    image = docker_client.api.commit(container_id, repository="fleet-test/own")["Id"]
    user = docker_client.api.create_container(image, ["/bin/true"], name="user")["Id"]
    with pytest.raises(errors.EngineRefused) as caught:
        tasks.remove(RemoveImage(image="fleet-test/own"), run)
    assert caught.value.kind == "image_in_use"
    docker_client.api.remove_container(user)
    assert image in tasks.remove(RemoveImage(image="fleet-test/own"), run).deleted
    with pytest.raises(errors.EngineRefused) as caught:
        tasks.remove(RemoveImage(image="fleet-test/own"), run)
    assert caught.value.kind == "no_such_image"


def test_a_removal_that_a_crash_interrupted_is_done_if_the_image_is_gone(tasks: ImageTasks) -> None:
    gone = tasks.removed(RemoveImage(image="fleet-test/gone:1"), since=clock.now())
    assert gone is not None
    assert gone.untagged == ("fleet-test/gone:1",)
    assert tasks.removed(RemoveImage(image=IMAGE), since=clock.now()) is None
