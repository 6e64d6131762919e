"""What the README tells people to type does what it says, on a `fleet up` with a real Engine."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.docker import IMAGE
from tests.services.ports import free_ports
from tests.services.private_engine import PrivateEngine
from tests.services.up import Up
from tests.services.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
#: Commands of the README that are run elsewhere, or cannot be run here, and why.
NOT_RUN = {
    "git clone <this repository> fleet && cd fleet": "this is a clone",
    "make up": "runs until Ctrl-C; tests/e2e/test_up.py runs what it starts",
    "make test": "is what runs this test",
    "docker run -d --name web nginx": "no image can be pulled; the test runs busybox under that name",
    "fleet control": "runs until it is stopped; tests/integration run it",
    "fleet flower": "runs until it is stopped; tests/integration/test_flower.py runs it",
    "fleet worker --host-id edge-7": "runs until it is stopped; the test starts it after enrolling",
}

#: Commands that do not exit with 0.
ENDS = {"fleet container create --all --privileged --dry-run busybox:1.36": 4}


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [content for name, content in fenced if name == language]


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("export ", "#"))]


@pytest.fixture
def up(tmp_path: Path, docker_engine: PrivateEngine, on_tmpfs: Path) -> Iterator[Up]:
    broker, flower = free_ports(2)
    ports = ("--broker-port", str(broker), "--flower-port", str(flower))
    started = Up(tmp_path / "state", *ports, DOCKER_HOST=docker_engine.url, FLEET_SECRETS_DIR=str(on_tmpfs))
    try:
        started.read_until("Ctrl-C ends all of it")
        yield started
    finally:
        started.end()


def test_the_commands_of_the_readme_run(up: Up, docker_engine: PrivateEngine) -> None:
    client = docker_engine.client()
    client.containers.run(IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL")
    client.close()
    until(lambda: "web" in up.fleet("ps").stdout, "the container in `fleet ps`")
    (up.directory / "password.txt").write_text("hunter2")
    token = ""
    for command in commands():
        if command in NOT_RUN:
            continue
        meant_here = command
        for written, meant in (
            ('"$(fleet host list -o id)"', "laptop"),
            ("TOKEN", token or "TOKEN"),
            ("busybox:1.36", IMAGE),
        ):
            meant_here = meant_here.replace(written, meant)
        words = shlex.split(meant_here)
        assert words[0] == "fleet", f"not run by any test: {command}"
        done = up.fleet(*words[1:])
        assert done.returncode == ENDS.get(command, 0), f"{command}\n{done.stdout}{done.stderr}"
        if words[1:3] == ["token", "create"]:
            token = done.stdout.strip()
    assert token
    assert "restart" in up.fleet("task", "list").stdout
    assert (up.state / "hosts" / "edge-7" / "credential.json").stat().st_mode & 0o077 == 0


def test_the_python_of_the_readme_runs(up: Up, docker_engine: PrivateEngine) -> None:
    client = docker_engine.client()
    client.containers.run(IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL")
    client.close()
    assert up.fleet("host", "label", "laptop", "env=prod").returncode == 0
    (source,) = blocks("python")
    source = re.sub(r"edge-\d", "laptop", source)
    program = up.directory / "readme.py"
    program.write_text(source)
    done = up.python(program)
    assert done.returncode == 0, done.stderr
    assert "laptop succeeded" in done.stdout


def test_whatever_is_not_run_is_still_in_the_readme() -> None:
    assert set(NOT_RUN) <= set(commands())
