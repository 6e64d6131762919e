"""Secrets of containers, end to end: kept, given to one host, read by the container, and nowhere else."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.services.docker import IMAGE
from tests.services.finding import holding
from tests.services.private_engine import PrivateEngine
from tests.services.system import System
from tests.services.waiting import until

pytestmark = [pytest.mark.docker]

VALUE = "correct-horse-battery-staple-7f3a"
SPEC = {"image": IMAGE, "command": ["/bin/sleep", "300"], "stop_signal": "SIGKILL", "name": "api"}


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def fleet(system: System, docker_engine: PrivateEngine, on_tmpfs: Path) -> System:
    """edge-1 with a Docker Engine, and a secret."""
    system.start_control()
    system.enroll("edge-1", labels={"env": "prod"})
    start_worker(system, docker_engine, on_tmpfs)
    keep(system, "db-password")
    return system


def start_worker(system: System, engine: PrivateEngine, on_tmpfs: Path) -> Any:
    return system.start_worker("edge-1", FLEET_DOCKER_URL=engine.url, FLEET_SECRETS_DIR=str(on_tmpfs))


def keep(system: System, name: str, *words: str, value: str = VALUE) -> "subprocess.CompletedProcess[str]":
    path = system.directory / "value"
    path.write_text(value)
    done = system.command("secret", "create", name, "--from-file", str(path), *words)
    path.unlink()
    assert done.returncode == 0, done.stderr
    return done


def create(system: System, **spec: Any) -> "subprocess.CompletedProcess[str]":
    wanted = {"spec": {**SPEC, **spec}}
    return system.command(
        "push-task", "fleet.containers.create", "--host", "edge-1", "--json", json.dumps(wanted), "--wait", "-o", "json"
    )


def made(system: System, **spec: Any) -> str:
    done = create(system, **spec)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout)["runs"][0]["reply"]["container"]["docker_id"])


def in_container(client: docker.DockerClient, docker_id: str, *argv: str) -> str:
    code, output = client.containers.get(docker_id).exec_run(list(argv), user="1000:1000")
    assert code == 0, output
    return str(output.decode())


def test_a_secret_is_a_file_that_its_container_alone_reads_and_lies_nowhere_else(
    fleet: System, docker_client: docker.DockerClient, docker_engine: PrivateEngine, on_tmpfs: Path
) -> None:
    docker_id = made(
        fleet, user="1000:1000", secrets=[{"name": "db-password"}, {"name": "db-password", "file": "other"}]
    )
    assert in_container(docker_client, docker_id, "cat", "/run/secrets/db-password") == VALUE
    (other,) = on_tmpfs.rglob("other")
    assert (other.stat().st_mode & 0o7777, other.stat().st_uid, other.stat().st_gid) == (0o400, 1000, 1000)
    code, output = docker_client.containers.get(docker_id).exec_run(
        ["sh", "-c", "echo x > /run/secrets/more"], user="0"
    )
    assert (code != 0, "Read-only" in output.decode()) == (True, True)

    assert VALUE not in json.dumps(docker_client.api.inspect_container(docker_id))
    assert len(holding(on_tmpfs, VALUE)) == 2
    assert holding(fleet.directory, VALUE) == []
    assert holding(docker_engine.socket.parent, VALUE) == []
    dump = json.dumps([event.data for event in fleet.events("secrets.issued")])
    assert "db-password" in dump
    assert VALUE not in dump

    removed = fleet.command("container", "rm", "api", "--host", "edge-1", "--force")
    assert removed.returncode == 0, removed.stderr
    assert holding(on_tmpfs, VALUE) == []
    assert list((fleet.directory / "hosts" / "edge-1" / "secrets").iterdir()) == []


def test_after_a_reboot_the_files_are_back_and_the_container_runs_again(
    fleet: System, docker_client: docker.DockerClient, docker_engine: PrivateEngine, on_tmpfs: Path
) -> None:
    docker_id = made(fleet, user="1000:1000", restart="always", secrets=[{"name": "db-password"}])
    stays = made(fleet, name="stopped", restart="unless-stopped", secrets=[{"name": "db-password"}])
    assert fleet.command("container", "stop", "stopped", "--host", "edge-1").returncode == 0
    assert fleet.parts[-1].stop() == 0
    os.kill(docker_engine.daemon_pid, signal.SIGKILL)
    docker_engine.await_end()
    shutil.rmtree(on_tmpfs)
    docker_engine.start()
    assert docker_client.containers.get(docker_id).status != "running", "the Engine could not start it"
    start_worker(fleet, docker_engine, on_tmpfs)
    until(lambda: docker_client.containers.get(docker_id).status == "running", "it runs again", timeout=60)
    assert in_container(docker_client, docker_id, "cat", "/run/secrets/db-password") == VALUE
    assert docker_client.containers.get(stays).status == "exited"


def test_what_docker_rm_takes_away_leaves_no_secret_behind(
    fleet: System, docker_client: docker.DockerClient, on_tmpfs: Path
) -> None:
    docker_id = made(fleet, secrets=[{"name": "db-password"}])
    assert holding(on_tmpfs, VALUE)
    docker_client.containers.get(docker_id).remove(force=True)
    until(lambda: not holding(on_tmpfs, VALUE), "its secret is gone, too")


#: Secrets that there is none of, of another host, and of another principal: how they are made, and what is said.
NOT_TO_BE_HAD: dict[str, tuple[tuple[str, ...] | None, str, str]] = {
    "none": (None, "unknown_secret", "there is no secret 'none'"),
    "elsewhere": (("-l", "env=test"), "not_permitted", "secret 'elsewhere' is not for this host"),
    "bobs": (("--principal", "bob"), "not_permitted", "secret 'bobs' is not for principal alice"),
}


def test_a_secret_that_may_not_be_had_makes_no_container(
    fleet: System, docker_client: docker.DockerClient, on_tmpfs: Path
) -> None:
    for name, (words, kind, said) in NOT_TO_BE_HAD.items():
        if words is not None:
            keep(fleet, name, *words)
        done = create(fleet, secrets=[{"name": "db-password"}, {"name": name}])
        assert done.returncode == 1
        (run,) = json.loads(done.stdout)["runs"]
        assert (run["error"]["kind"], said in run["error"]["message"]) == (kind, True)
        assert docker_client.containers.list(all=True, ignore_removed=True) == []
        assert holding(on_tmpfs, VALUE) == []
    assert len(fleet.events("secrets.refused")) == len(NOT_TO_BE_HAD)


def test_secrets_never_go_onto_a_disk(fleet: System, docker_engine: PrivateEngine, tmp_path: Path) -> None:
    assert fleet.parts[-1].stop() == 0
    start_worker(fleet, docker_engine, tmp_path / "on-disk")
    done = create(fleet, secrets=[{"name": "db-password"}])
    (run,) = json.loads(done.stdout)["runs"]
    assert "is not on a tmpfs" in run["error"]["message"]
    assert not (tmp_path / "on-disk").exists()


def test_a_new_value_is_for_new_containers_and_a_removed_secret_for_none(
    fleet: System, docker_client: docker.DockerClient
) -> None:
    first = made(fleet, secrets=[{"name": "db-password"}])
    refused = fleet.command("secret", "create", "db-password", "--from-file", "/etc/hostname")
    assert refused.returncode == 4
    assert "--replace" in refused.stderr
    keep(fleet, "db-password", "--replace", value="another")
    second = made(fleet, name="second", secrets=[{"name": "db-password"}])
    read = [
        docker_client.containers.get(each).exec_run(["cat", "/run/secrets/db-password"])[1] for each in (first, second)
    ]
    assert read == [VALUE.encode(), b"another"]
    listed = fleet.command("secret", "list", "-o", "json")
    assert json.loads(listed.stdout)[0]["version"] == 2
    assert VALUE not in listed.stdout
    assert fleet.command("secret", "rm", "db-password").returncode == 0
    assert create(fleet, name="third", secrets=[{"name": "db-password"}]).returncode == 1


def test_the_fleets_key_changes_and_what_is_kept_is_still_opened(
    fleet: System, docker_client: docker.DockerClient
) -> None:
    for words in (("key", "rotate"), ("ps",), ("key", "retire", "-y")):  # alice hears of the new key in between
        done = fleet.command(*words)
        assert done.returncode == 0, done.stderr
    made(fleet, secrets=[{"name": "db-password"}])
    assert docker_client.containers.get("api").status == "running"
