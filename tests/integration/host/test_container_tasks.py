"""The container contracts, carried out by this host's functions on a real Engine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts import AnyContract, Performer, Reply, containers, hosts, registry
from fleet.settings import Settings
from tests.services.containers import container_tasks
from tests.services.docker import IMAGE
from tests.services.private_engine import PrivateEngine
from workers.host import facts
from workers.host.containers.engine import Engine
from workers.host.tasks.registry import performers

ABOUT_ONE = (
    containers.INSPECT,
    containers.START,
    containers.STOP,
    containers.RESTART,
    containers.KILL,
    containers.REMOVE,
    containers.WAIT,
)


@dataclass
class Run:
    """A run's context that keeps what it is told."""

    docker: Any = None
    run_id: str = "edge:1"
    host: str = "edge"
    attempt: int = 1
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    submitted_by: str = "tester"
    steps: list[str] = field(default_factory=list)

    def progress(self, step: str, percent: float | None = None) -> None:
        self.steps.append(step)


class Host:
    """All that a host can do."""

    def __init__(self, url: str, directory: Path) -> None:
        self.engine = Engine(url)
        self.run = Run()
        self.performers: Mapping[str, Performer] = performers(
            lambda: facts.detect(Settings(), self.engine, takes_commands=True), container_tasks(self.engine, directory)
        )

    def do(self, contract: AnyContract, **arguments: Any) -> Any:
        reply = self.performers[contract.name](contract.parse(arguments), self.run)
        assert isinstance(reply, contract.reply)
        assert Reply.model_dump_json(reply)
        return reply


@pytest.fixture
def host(docker_engine: PrivateEngine, tmp_path: Path) -> Iterator[Host]:
    host = Host(docker_engine.url, tmp_path)
    yield host
    host.engine.close()


@pytest.fixture
def host_without_docker(tmp_path: Path) -> Host:
    return Host("unix:///nowhere/docker.sock", tmp_path)


@pytest.fixture
def web(docker_client: docker.DockerClient) -> Any:
    return docker_client.containers.run(
        IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL", labels={"app": "shop"}
    )


@pytest.mark.docker
def test_a_container_goes_through_its_life_by_tasks(host: Host, web: Any) -> None:
    stopped = host.do(containers.STOP, container="web", timeout_seconds=1).container
    assert (stopped.docker_id, stopped.state) == (web.id, "exited")
    started = host.do(containers.START, container=web.id[:12]).container
    again = host.do(containers.START, container="web").container
    assert started.state == again.state == "running"
    assert started.started == again.started
    restarted = host.do(containers.RESTART, container="web", timeout_seconds=1).container
    assert restarted.started > started.started
    assert host.run.steps == ["stopping", "starting", "starting", "restarting"]


@pytest.mark.docker
def test_a_list_says_when_each_container_was_started(host: Host, web: Any, docker_client: docker.DockerClient) -> None:
    docker_client.containers.create(IMAGE, ["/bin/true"], name="never")
    listed = {c.name: c for c in host.do(containers.LIST).containers}
    assert set(listed) == {"web", "never"}
    assert listed["never"].started is None
    assert listed["web"] == host.do(containers.INSPECT, container="web").container.model_copy(
        update={"status": listed["web"].status}  # "Up 1 second" grows
    )
    assert [c.name for c in host.do(containers.LIST, all=False).containers] == ["web"]


@pytest.mark.docker
def test_inspect_gives_the_engines_own_answer_too(host: Host, web: Any) -> None:
    details = host.do(containers.INSPECT, container="web")
    assert details.container.labels == {"app": "shop"}
    assert details.inspect["Config"]["StopSignal"] == "SIGKILL"


@pytest.mark.docker
def test_a_container_that_goes_away_when_it_stops_was_stopped_all_the_same(
    host: Host, docker_client: docker.DockerClient
) -> None:
    container = docker_client.containers.run(
        IMAGE, ["/bin/sleep", "300"], name="brief", detach=True, auto_remove=True, stop_signal="SIGKILL"
    )
    reply = host.do(containers.STOP, container="brief", timeout_seconds=1)
    assert reply.container.docker_id == container.id
    assert reply.container.state in {"removing", "exited"}


@pytest.mark.docker
def test_every_task_about_one_container_names_the_one_that_is_not_there(host: Host) -> None:
    for contract in ABOUT_ONE:
        with pytest.raises(errors.EngineRefused, match="'absent'") as caught:
            host.do(contract, container="absent")
        assert caught.value.kind == "no_such_container"


@pytest.mark.docker
def test_facts_tell_the_engines_version(host: Host) -> None:
    assert host.do(hosts.FACTS).docker_version == host.engine.version()


def test_without_an_engine_container_tasks_fail_and_the_others_work(host_without_docker: Host) -> None:
    for contract in ABOUT_ONE:
        with pytest.raises(errors.EngineUnavailable):
            host_without_docker.do(contract, container="web")
    with pytest.raises(errors.EngineUnavailable):
        host_without_docker.do(containers.LIST)
    assert host_without_docker.do(hosts.PING, echo="hello").echo == "hello"
    assert host_without_docker.do(hosts.FACTS).docker_version is None


def test_every_contract_has_exactly_one_function(host_without_docker: Host) -> None:
    governed = {name for name, contract in registry.known().items() if contract.governed}  # see test_governed_files
    assert set(host_without_docker.performers) == set(registry.known()) - governed
