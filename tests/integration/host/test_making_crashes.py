"""A worker that is killed between any two calls of the Engine leaves nothing half done: the next one settles it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts import AnyContract, Reply, containers
from fleet.contracts.containers import Label
from fleet.contracts.envelope import Envelope
from tests.services.containers import KeptSecrets, tasks_and_undoing
from tests.services.docker import IMAGE, left
from tests.services.private_engine import PrivateEngine
from tests.services.runs import FakeRun
from workers.host.claim import Claim
from workers.host.containers.engine import Engine
from workers.host.tasks.registry import performers, reconcilers

pytestmark = [pytest.mark.docker]

RUN = "edge:01900000-0000-7000-8000-000000000001"
WEB = {
    "image": IMAGE,
    "name": "web",
    "command": ["/bin/sleep", "300"],
    "stop_signal": "SIGKILL",
    "volumes": [{"name": "data", "target": "/data"}],
    "networks": ["bridge", "back"],
    "secrets": [{"name": "db"}],
}
BROKEN = {**WEB, "command": ["/bin/absent"]}

Kill = Callable[[AnyContract, int, dict[str, Any]], int]


def memory(directory: Path) -> Path:
    """Return a directory of a test's own on a tmpfs."""
    return Path("/dev/shm") / f"fleet-test-{os.getpid()}-{directory.name}"


def secrets_left(directory: Path) -> list[str]:
    """Return what there is of secrets, as files and sealed."""
    return sorted(
        str(path.relative_to(top))
        for top in (memory(directory), directory / "secrets")
        for path in top.rglob("*")
        if path.is_file()
    )


#: What there is of a container that stays: its file, and what makes that again.
KEPT = [f"{RUN.partition(':')[2]}/db", f"{RUN.partition(':')[2]}.json"]


class Session:
    """The next session of the worker after one that was killed."""

    def __init__(self, url: str, directory: Path) -> None:
        self.engine = Engine(url)
        self.secrets = KeptSecrets(memory(directory), directory)
        self._tasks, self.undoing = tasks_and_undoing(self.engine, directory, secrets=self.secrets, interrupted={RUN})

    def settle(self, contract: AnyContract, arguments: dict[str, Any], *, since: datetime) -> Reply:
        """Do what settling does with an interrupted run: take what is there for its effect, or run it again."""
        reply = self._settle(contract, arguments, since=since)
        self.undoing.look()
        return reply

    def _settle(self, contract: AnyContract, arguments: dict[str, Any], *, since: datetime) -> Reply:
        request = contract.parse(arguments)
        envelope = Envelope(host="edge", host_key="k", submitted_by="tester", submitted_at=0)
        claim = Claim(RUN, 1, contract.name, envelope, "", since.timestamp())
        reply = reconcilers(self._tasks)[contract.name](request, claim=claim, since=since)
        return reply or performers(lambda: pytest.fail("no facts"), self._tasks)[contract.name](
            request, FakeRun(run_id=RUN)
        )

    def take_up_abandoned(self) -> None:
        """Do what a session does about runs that ended (by a cancel, say) while their worker was killed."""
        self.undoing.take_up(except_for=())
        self.undoing.look()


@pytest.fixture
def kill(docker_engine: PrivateEngine, tmp_path: Path) -> Iterator[Kill]:
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.services.scripted_making",
            docker_engine.url,
            str(tmp_path),
            str(memory(tmp_path)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdin
        assert process.stdout

        def kill(contract: AnyContract, moment: int, arguments: dict[str, Any]) -> int:
            assert process.stdin
            assert process.stdout
            order = {"task": contract.name, "arguments": arguments, "run": RUN, "fatal": moment}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield kill
        process.stdin.close()
    shutil.rmtree(memory(tmp_path), ignore_errors=True)


@pytest.fixture(autouse=True)
def _network(docker_client: docker.DockerClient) -> None:
    docker_client.networks.create("back")


def clear(client: docker.DockerClient) -> None:
    for container in client.containers.list(all=True, ignore_removed=True):
        container.remove(force=True, v=True)
    for volume in client.volumes.list():
        volume.remove()


def old_web(client: docker.DockerClient) -> str:
    """Have a container that is to be replaced; return its id."""
    made = client.containers.run(
        IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL", ports={"80/tcp": 8080}
    )
    return str(made.id)


def test_a_container_is_whole_or_not_there_whenever_its_worker_is_killed(
    kill: Kill, docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    arguments, moment, status = {"spec": WEB}, 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        moment += 1
        since = datetime.now(UTC)
        status = kill(containers.CREATE, moment, arguments)
        session = Session(docker_engine.url, tmp_path)
        reply = session.settle(containers.CREATE, arguments, since=since)
        assert isinstance(reply, containers.ContainerCreated)
        assert left(docker_client) == (["web"], ["data"]), moment
        assert secrets_left(tmp_path) == sorted(KEPT), moment
        there = docker_client.containers.get("web")
        assert (there.id, there.status) == (reply.container.docker_id, "running"), moment
        assert set(there.attrs["NetworkSettings"]["Networks"]) == {"bridge", "back"}
        clear(docker_client)
        session.secrets.discard(RUN)
    assert status == 0
    assert moment >= 5  # volume, create, connect, start


def test_what_a_cancelled_run_had_made_when_its_worker_was_killed_is_removed_by_the_next(
    kill: Kill, docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    moment, status = 0, -signal.SIGKILL
    while True:
        moment += 1
        status = kill(containers.CREATE, moment, {"spec": WEB})
        if status == 0:
            break
        Session(docker_engine.url, tmp_path).take_up_abandoned()
        assert left(docker_client) == ([], []), moment
        assert secrets_left(tmp_path) == [], moment
    assert left(docker_client) == (["web"], ["data"])


@pytest.mark.parametrize("recovery", ["settled", "abandoned"])
def test_a_run_that_fails_leaves_nothing_whenever_its_worker_is_killed(
    kill: Kill, docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path, recovery: str
) -> None:
    arguments, moment, status = {"spec": BROKEN}, 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        moment += 1
        status = kill(containers.CREATE, moment, arguments)
        session = Session(docker_engine.url, tmp_path)
        if recovery == "abandoned":
            session.take_up_abandoned()
        else:
            with pytest.raises(errors.EngineRefused, match="absent"):
                session.settle(containers.CREATE, arguments, since=datetime.now(UTC))
        assert left(docker_client) == ([], []), moment
        assert secrets_left(tmp_path) == [], moment
    assert status == 1
    assert moment >= 7


def test_a_container_is_replaced_whenever_the_worker_is_killed(
    kill: Kill, docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    arguments = {"spec": {**WEB, "ports": [{"container_port": 80, "host_port": 8080}]}, "replace": True}
    moment, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        moment += 1
        old = old_web(docker_client)
        status = kill(containers.CREATE, moment, arguments)
        session = Session(docker_engine.url, tmp_path)
        session.settle(containers.CREATE, arguments, since=datetime.now(UTC))
        assert left(docker_client) == (["web"], ["data"]), moment
        assert secrets_left(tmp_path) == sorted(KEPT), moment
        there = docker_client.containers.get("web")
        assert there.id != old
        assert (there.status, there.labels[Label.RUN]) == ("running", RUN), moment
        clear(docker_client)
        session.secrets.discard(RUN)
    assert status == 0
    assert moment >= 9


@pytest.mark.parametrize("recovery", ["settled", "abandoned"])
def test_the_old_container_runs_on_where_the_new_one_does_not_whenever_the_worker_is_killed(
    kill: Kill, docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path, recovery: str
) -> None:
    arguments = {"spec": BROKEN, "replace": True}
    old, moment, status = old_web(docker_client), 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        moment += 1
        status = kill(containers.CREATE, moment, arguments)
        session = Session(docker_engine.url, tmp_path)
        if recovery == "abandoned":
            session.take_up_abandoned()
        else:
            with pytest.raises(errors.EngineRefused, match="absent"):
                session.settle(containers.CREATE, arguments, since=datetime.now(UTC))
        assert left(docker_client) == (["web"], []), moment
        assert secrets_left(tmp_path) == [], moment
        there = docker_client.containers.get("web")
        assert (there.id, there.status) == (old, "running"), moment
    assert status == 1
    assert moment >= 12


def test_a_container_is_removed_with_its_volumes_whenever_the_worker_is_killed(
    kill: Kill, docker_engine: PrivateEngine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    arguments, moment, status = {"container": "web", "force": True, "volumes": True}, 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        moment += 1
        assert kill(containers.CREATE, 1000, {"spec": WEB}) == 0
        since = datetime.now(UTC)
        status = kill(containers.REMOVE, moment, arguments)
        Session(docker_engine.url, tmp_path).settle(containers.REMOVE, arguments, since=since)
        assert left(docker_client) == ([], []), moment
        assert secrets_left(tmp_path) == [], moment
    assert (status, moment) == (0, 3)
