"""Containers made by pushes to a real worker: under its owner's policy, and past the worker's death."""

import os
import signal
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts.containers import Label
from tests.services.containers import write_policy
from tests.services.docker import IMAGE
from tests.services.freezing import frozen
from tests.services.private_engine import PrivateEngine
from tests.services.system import System
from tests.services.waiting import until

pytestmark = pytest.mark.docker

SPEC = {"image": IMAGE, "name": "web", "command": ["/bin/sleep", "300"], "stop_signal": "SIGKILL"}
CREATE = "fleet.containers.create"


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def fleet_of_one(system: System, docker_engine: PrivateEngine, tmp_path: Path) -> System:
    system.start_control()
    system.enroll("edge-1")
    policy = write_policy(tmp_path / "policy.toml", capabilities=["SYS_PTRACE"])
    system.start_worker("edge-1", FLEET_DOCKER_URL=docker_engine.url, FLEET_POLICY_FILE=str(policy))
    return system


def push(system: System, task: str, **arguments: Any) -> Any:
    return system.fleet.push(task, on="edge-1", arguments=arguments)


def test_a_container_goes_from_create_to_remove(fleet_of_one: System, docker_client: docker.DockerClient) -> None:
    (created,) = push(fleet_of_one, CREATE, spec={**SPEC, "memory": "64m"}).wait(timeout=30)
    assert created.state == "succeeded", created
    there = docker_client.containers.get("web")
    assert there.labels[Label.PRINCIPAL] == "alice"
    assert there.labels[Label.HOST] == "edge-1"
    assert there.attrs["HostConfig"]["Memory"] == 64 * 1024**2
    (removed,) = push(fleet_of_one, "fleet.containers.remove", container="web", force=True).wait(timeout=30)
    assert removed.state == "succeeded", removed
    assert docker_client.containers.list(all=True, ignore_removed=True) == []


def test_the_hosts_policy_counts_and_not_the_push(fleet_of_one: System, docker_client: docker.DockerClient) -> None:
    (allowed,) = push(fleet_of_one, CREATE, spec={**SPEC, "cap_add": ["SYS_PTRACE"]}, start=False).wait(timeout=30)
    assert allowed.state == "succeeded", allowed
    (denied,) = push(fleet_of_one, CREATE, spec={**SPEC, "name": "root", "privileged": True}).wait(timeout=30)
    assert denied.state == "failed"
    assert "privileged = true" in str(denied)
    assert [c.name for c in docker_client.containers.list(all=True, ignore_removed=True)] == ["web"]


def test_a_field_that_is_the_engines_is_refused_where_it_is_pushed(fleet_of_one: System) -> None:
    with pytest.raises(errors.InvalidArguments, match="`privileged`"):
        push(fleet_of_one, CREATE, spec={**SPEC, "HostConfig": {"Privileged": True}})


def test_a_worker_that_starts_with_a_policy_that_others_may_write_ends(
    system: System, docker_engine: PrivateEngine, tmp_path: Path
) -> None:
    system.start_control()
    system.enroll("edge-1")
    policy = write_policy(tmp_path / "policy.toml", privileged=True)
    policy.chmod(0o666)
    part = system.run("worker", "--host-id", "edge-1", FLEET_POLICY_FILE=str(policy))
    assert part.process.wait(30) == 2
    assert "may change it" in part.log.read_text()


def test_a_container_is_made_once_by_a_worker_that_is_killed_in_the_middle_of_it(
    fleet_of_one: System, docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    worker = fleet_of_one.parts[-1]
    with frozen(docker_engine.daemon_pid):
        batch = push(fleet_of_one, CREATE, spec={**SPEC, "volumes": [{"name": "data", "target": "/data"}]})
        until((tmp_path / "hosts" / "edge-1" / "making").is_dir, "the run has begun to make something")
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait(30)
    fleet_of_one.start_worker("edge-1", FLEET_DOCKER_URL=docker_engine.url)
    (run,) = batch.wait(timeout=60)
    assert run.state == "succeeded", run
    assert [c.name for c in docker_client.containers.list(all=True, ignore_removed=True)] == ["web"]
    assert docker_client.containers.get("web").status == "running"
    assert [v.name for v in docker_client.volumes.list()] == ["data"]
