"""Making and removing containers on a real Engine: the whole of it, in either order, and nothing left over."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts import AnyContract, containers
from fleet.contracts.containers import Label
from tests.services.containers import tasks_and_undoing
from tests.services.docker import IMAGE, left
from tests.services.private_engine import PrivateEngine
from tests.services.runs import FakeRun
from tests.services.waiting import until
from workers.host.containers import making
from workers.host.containers.engine import Engine
from workers.host.containers.listing import describe
from workers.host.tasks.registry import performers

pytestmark = pytest.mark.docker

SLEEP = {"image": IMAGE, "command": ["/bin/sleep", "300"], "stop_signal": "SIGKILL"}
RUN = "edge:01900000-0000-7000-8000-00000000000"


class Host:
    """What a host does about containers, one run after the other."""

    def __init__(self, url: str, directory: Path, **policy: Any) -> None:
        self.engine = Engine(url)
        tasks, self.undoing = tasks_and_undoing(self.engine, directory, **policy)
        self._performers = performers(lambda: pytest.fail("no facts"), tasks)

    def do(self, contract: AnyContract, *, run: FakeRun | None = None, **arguments: Any) -> Any:
        return self._performers[contract.name](contract.parse(arguments), run or FakeRun())

    def make(self, run: FakeRun | None = None, *, replace: bool = False, start: bool = True, **spec: Any) -> Any:
        wanted = {**SLEEP, **spec}
        return self.do(containers.CREATE, run=run, spec=wanted, replace=replace, start=start)

    def refused(self, **wishes: Any) -> errors.TaskFailed:
        with pytest.raises(errors.TaskFailed) as caught:
            self.make(**wishes)
        return caught.value


@pytest.fixture
def host(docker_engine: PrivateEngine, tmp_path: Path) -> Iterator[Host]:
    host = Host(docker_engine.url, tmp_path)
    yield host
    host.engine.close()


def test_a_container_is_made_with_all_that_its_spec_says(host: Host, docker_client: docker.DockerClient) -> None:
    docker_client.networks.create("shop")
    made = host.make(
        run=FakeRun(run_id=f"{RUN}1"),
        name="web",
        environment={"A": "1 = 2"},
        labels={"app": "shop"},
        ports=[{"container_port": 80, "host_port": 8080, "host_ip": "127.0.0.1"}, {"container_port": 81}],
        volumes=[{"name": "data", "target": "/data", "read_only": True}],
        tmpfs=[{"target": "/scratch", "size": "1m", "mode": 0o700}],
        networks=["shop", "bridge"],
        restart="on-failure:3",
        user="1000:1000",
        working_dir="/bin",
        health_check={"test": ["CMD", "/bin/true"], "interval": 1.5, "retries": 2},
        memory="64m",
        cpus=0.5,
        pids=50,
        stop_timeout=2,
        init=False,
        read_only=True,
        hostname="front",
        extra_hosts={"db": "10.0.0.7"},
        ulimits=[{"name": "nofile", "soft": 100, "hard": 200}],
        shm_size="1m",
        cap_drop=["ALL"],
        no_new_privileges=True,
    )
    assert made.created
    assert made.container.state == "running"
    assert made.container.labels == {
        "app": "shop",
        "fleet.host": "edge",
        "fleet.managed": "true",
        "fleet.principal": "tester",
        "fleet.replaces": "",
        "fleet.replaces.running": "",
        "fleet.run": f"{RUN}1",
        "fleet.spec": made.container.labels[Label.SPEC],
    }
    details = host.do(containers.INSPECT, container="web").inspect
    config, given = details["Config"], details["HostConfig"]
    assert config["Hostname"] == "front"
    assert config["StopTimeout"] == 2
    assert config["Healthcheck"] == {"Test": ["CMD", "/bin/true"], "Interval": 1_500_000_000, "Retries": 2}
    assert "A=1 = 2" in config["Env"]
    assert set(details["NetworkSettings"]["Networks"]) == {"shop", "bridge"}
    assert given["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "3"}}
    assert (given["Memory"], given["NanoCpus"], given["PidsLimit"]) == (64 * 1024**2, 500_000_000, 50)
    assert given["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert {m["Destination"]: m["RW"] for m in details["Mounts"]} == {"/data": False, "/scratch": True}
    removed = host.do(containers.REMOVE, container="web", force=True, volumes=True)
    assert removed.container.name == "web"
    assert removed.volumes == ("data",)
    assert left(docker_client) == ([], [])


def test_a_run_that_comes_twice_makes_one_container(host: Host, docker_client: docker.DockerClient) -> None:
    run = FakeRun(run_id=f"{RUN}2")
    first, second = host.make(run=run), host.make(run=run)
    assert (first.created, second.created) == (True, False)
    assert first.container.docker_id == second.container.docker_id
    assert left(docker_client)[0] == ["fleet-000000000002"]


def test_a_container_that_was_made_and_not_started_is_started_by_the_next_attempt(host: Host) -> None:
    run = FakeRun(run_id=f"{RUN}3")
    assert host.make(run=run, start=False).container.state == "created"
    again = host.make(run=run)
    assert (again.created, again.container.state) == (False, "running")


def test_what_nobody_made_by_fleet_is_not_listed_as_managed(host: Host, docker_client: docker.DockerClient) -> None:
    docker_client.containers.create(IMAGE, ["/bin/true"], name="foreign")
    host.make(name="web")
    assert {c.name for c in host.do(containers.LIST).containers} == {"foreign", "web"}
    assert [c.name for c in host.do(containers.LIST, managed=True).containers] == ["web"]


def test_a_name_that_is_taken_is_a_conflict_that_leaves_nothing(host: Host, docker_client: docker.DockerClient) -> None:
    old = host.make(name="web")
    problem = host.refused(name="web", volumes=[{"name": "fresh", "target": "/data"}])
    assert problem.kind == "name_in_use"
    assert "--replace" in str(problem)
    assert left(docker_client) == (["web"], [])
    assert docker_client.containers.get("web").id == old.container.docker_id


def test_replacing_takes_name_and_ports_over(host: Host, docker_client: docker.DockerClient) -> None:
    port = [{"container_port": 80, "host_port": 8080}]
    old = host.make(name="web", ports=port)
    new = host.make(name="web", ports=port, replace=True)
    assert new.container.docker_id != old.container.docker_id
    assert (new.container.name, new.container.state) == ("web", "running")
    host.undoing.look()
    assert left(docker_client) == (["web"], [])


@pytest.mark.parametrize("first", ["gone", "stopped"])
def test_a_container_that_goes_when_it_stops_is_replaced_too(
    host: Host, docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    def stop(container: str, *, timeout_seconds: int) -> None:
        Engine.stop(host.engine, container, timeout_seconds=timeout_seconds)
        with suppress(docker.errors.NotFound):
            old.wait(condition="removed")

    if first == "gone":
        monkeypatch.setattr(host.engine, "stop", stop)
    old = docker_client.containers.run(
        IMAGE,
        ["/bin/sleep", "300"],
        name="web",
        detach=True,
        auto_remove=True,
        stop_signal="SIGKILL",
        ports={"80/tcp": 8080},
    )
    new = host.make(name="web", ports=[{"container_port": 80, "host_port": 8080}], replace=True)
    assert (new.container.name, new.container.state) == ("web", "running")
    host.undoing.look()
    assert left(docker_client) == (["web"], [])
    assert docker_client.containers.get("web").id == new.container.docker_id


def test_what_cannot_run_again_is_given_its_name_back_and_the_rest_is_undone(
    host: Host, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    mounts = [docker.types.Mount("/served", str(served), type="bind")]
    old = docker_client.containers.run(
        IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL", mounts=mounts
    )
    served.rmdir()
    problem = host.refused(
        name="web", replace=True, command=["/bin/absent"], volumes=[{"name": "fresh", "target": "/fresh"}]
    )
    assert "absent" in str(problem)
    assert left(docker_client) == (["web"], [])
    there = docker_client.containers.get("web")
    assert (there.id, there.status) == (old.id, "exited")
    assert list((tmp_path / "state").rglob("making/*.json")) == []


def test_a_run_that_is_ended_while_its_container_starts_leaves_the_old_one(
    host: Host, docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, run = host.make(name="web"), FakeRun()

    def late(engine: Engine, reference: str) -> containers.Container:
        found = describe(engine, reference)
        run.over = found.state == "running" and found.docker_id != old.container.docker_id
        return found

    monkeypatch.setattr(making, "describe", late)
    with pytest.raises(errors.TaskCancelled):
        host.make(run=run, name="web", replace=True)
    assert left(docker_client) == (["web"], [])
    there = docker_client.containers.get("web")
    assert (there.id, there.status) == (old.container.docker_id, "running")


def test_replacing_what_is_not_there_is_making_it(host: Host) -> None:
    assert host.make(name="web", replace=True).container.name == "web"


def test_a_replacement_that_does_not_start_leaves_the_old_one_running(
    host: Host, docker_client: docker.DockerClient
) -> None:
    old = host.make(name="web", volumes=[{"name": "data", "target": "/data"}])
    problem = host.refused(name="web", replace=True, command=["/bin/absent"])
    assert problem.kind == "bad_request"
    assert left(docker_client) == (["web"], ["data"])
    there = docker_client.containers.get("web")
    assert (there.id, there.status) == (old.container.docker_id, "running")


def test_a_replacement_that_cannot_be_made_leaves_the_old_one_alone(
    host: Host, docker_client: docker.DockerClient
) -> None:
    old = host.make(name="web")
    assert host.refused(name="web", replace=True, image="fleet-test/absent", networks=["none"]).kind in {
        "no_such_image",
        "registry_unreachable",
    }
    there = docker_client.containers.get("web")
    assert (there.id, there.attrs["State"]["StartedAt"]) == (old.container.docker_id, there.attrs["State"]["StartedAt"])
    assert there.status == "running"


def test_a_port_in_use_is_said_to_be_and_nothing_is_left(host: Host, docker_client: docker.DockerClient) -> None:
    host.make(name="web", ports=[{"container_port": 80, "host_port": 8080}])
    problem = host.refused(
        name="other", ports=[{"container_port": 80, "host_port": 8080}], volumes=[{"name": "vol", "target": "/v"}]
    )
    assert problem.kind == "port_in_use"
    assert "host_port" in str(problem)
    assert left(docker_client) == (["web"], [])


def test_an_image_that_is_not_there_is_said_to_be_absent(host: Host, docker_client: docker.DockerClient) -> None:
    with pytest.raises(errors.EngineRefused, match="fleet-test/absent") as caught:
        host.do(containers.CREATE, spec={"image": "fleet-test/absent"}, pull="never")
    assert caught.value.kind == "no_such_image"
    assert left(docker_client) == ([], [])


def test_a_network_that_is_not_there_is_said_to_be_absent(host: Host, docker_client: docker.DockerClient) -> None:
    assert host.refused(networks=["absent"], volumes=[{"name": "vol", "target": "/v"}]).kind == "no_such_network"
    assert left(docker_client) == ([], [])


def test_a_volume_that_somebody_uses_outlives_the_run_that_made_it(
    host: Host, docker_client: docker.DockerClient
) -> None:
    host.make(name="one", volumes=[{"name": "shared", "target": "/data"}])
    host.make(name="two", volumes=[{"name": "shared", "target": "/data"}])
    assert host.do(containers.REMOVE, container="one", force=True, volumes=True).volumes == ()
    assert left(docker_client) == (["two"], ["shared"])


def test_removing_a_container_that_runs_takes_force(host: Host, docker_client: docker.DockerClient) -> None:
    host.make(name="web", volumes=[{"name": "data", "target": "/data"}])
    with pytest.raises(errors.EngineRefused, match="--force") as caught:
        host.do(containers.REMOVE, container="web")
    assert caught.value.kind == "container_running"
    host.do(containers.STOP, container="web")
    assert host.do(containers.REMOVE, container="web").volumes == ()
    assert left(docker_client) == ([], ["data"])
    docker_client.volumes.get("data").remove()
    with pytest.raises(errors.EngineRefused) as gone:
        host.do(containers.REMOVE, container="web")
    assert gone.value.kind == "no_such_container"


def test_waiting_ends_with_the_container_and_tells_its_exit_code(host: Host) -> None:
    made = host.make(command=["/bin/sh", "-c", "exit 7"])
    exited = host.do(containers.WAIT, container=made.container.docker_id)
    assert (exited.exit_code, exited.container.state) == (7, "exited")


def test_waiting_ends_with_its_run(host: Host) -> None:
    host.make(name="web")
    run = FakeRun()
    run.over = True
    with pytest.raises(errors.TaskCancelled):
        host.do(containers.WAIT, run=run, container="web")


def test_killing_sends_the_signal_that_was_named(host: Host, docker_client: docker.DockerClient) -> None:
    script = "trap 'exit 3' USR1; echo ready; while true; do sleep 0.1; done"
    host.make(name="web", command=["/bin/sh", "-c", script])
    until(docker_client.containers.get("web").logs, "it minds the signal")
    host.do(containers.KILL, container="web", signal="SIGUSR1")
    assert host.do(containers.WAIT, container="web").exit_code == 3
    with pytest.raises(errors.EngineRefused) as caught:
        host.do(containers.KILL, container="web")
    assert caught.value.kind == "not_running"


def test_a_run_that_was_ended_meanwhile_leaves_nothing(host: Host, docker_client: docker.DockerClient) -> None:
    run = FakeRun()
    run.over_after = "creating"
    with pytest.raises(errors.TaskCancelled):
        host.make(run=run, volumes=[{"name": "vol", "target": "/v"}])
    assert left(docker_client) == ([], [])


def test_a_check_says_what_the_engine_would_be_asked_for_and_makes_nothing(
    host: Host, docker_client: docker.DockerClient
) -> None:
    allowed = host.do(containers.CHECK, spec={**SLEEP, "volumes": [{"name": "vol", "target": "/v"}]})
    assert allowed.allowed
    assert allowed.request["HostConfig"]["Mounts"][0]["Source"] == "vol"
    denied = host.do(containers.CHECK, spec={**SLEEP, "privileged": True, "pid_mode": "host"})
    assert not denied.allowed
    assert [(d.field, d.grant) for d in denied.denials] == [
        ("privileged", "privileged = true"),
        ("pid_mode", 'namespaces = ["pid:host"]'),
    ]
    assert json.dumps(denied.model_dump(mode="json"))
    assert left(docker_client) == ([], [])


def test_only_managed_containers_are_acted_on_where_the_policy_says_so(
    docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    host = Host(docker_engine.url, tmp_path, manage="managed")
    docker_client.containers.run(IMAGE, ["/bin/sleep", "300"], name="foreign", detach=True, stop_signal="SIGKILL")
    host.make(name="web")
    for contract in (
        containers.INSPECT,
        containers.START,
        containers.STOP,
        containers.RESTART,
        containers.KILL,
        containers.REMOVE,
        containers.WAIT,
    ):
        with pytest.raises(errors.NotGranted, match="manage = 'managed'") as caught:
            host.do(contract, container="foreign")
        assert caught.value.kind == "not_managed"
    with pytest.raises(errors.NotGranted):
        host.make(name="foreign", replace=True)
    docker_client.volumes.create("theirs")
    assert "theirs was not made by Fleet" in str(host.refused(volumes=[{"name": "theirs", "target": "/t"}]))
    assert docker_client.containers.get("foreign").status == "running"
    assert host.do(containers.STOP, container="web", timeout_seconds=1).container.state == "exited"
    docker_client.volumes.get("theirs").remove()
    host.engine.close()
