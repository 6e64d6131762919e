"""The wheel, installed beside somebody else's packages named `workers`, `beat` and `config`.

Everything comes from the wheel and nothing from the checkout; the libraries are those of the running environment.
"""

import io
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from fleet.generate.wheel import pack
from tests.services import wheels
from tests.services.ports import free_ports
from tests.services.up import Up
from tests.services.wheels import REPOSITORY

pytestmark = pytest.mark.xdist_group("wheel")

FOREIGN = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "somebody-elses"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["workers", "beat", "config"]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(REPOSITORY, target=tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and the foreign packages; returns its `bin`."""
    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / "pyproject.toml").write_text(FOREIGN)
    for name in ("workers", "beat", "config"):
        (foreign / name).mkdir()
        (foreign / name / "__init__.py").write_text("FOREIGN = True\n")
    both = (wheel, wheels.build(foreign, target=tmp_path_factory.mktemp("foreign-wheel")))
    return wheels.install(tmp_path_factory.mktemp("environment"), both)


def run(*command: str | Path, where: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "PYTHON"))}
    variables = {"FLEET_STATE_DIR": str(where / "state"), **variables}
    return subprocess.run(
        [str(word) for word in command],
        check=False,
        capture_output=True,
        text=True,
        cwd=where,
        env={**inherited, **variables},
    )


def test_it_holds_one_package_and_its_services(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"fleet", "dockfleet"}
    for expected in ("workers/host/app.py", "beat/scheduler.py", "config/valkey.conf", "config/fleet.example.toml"):
        assert f"fleet/_services/{expected}" in names
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyc")]


def test_the_one_that_fleet_generate_packs_is_the_same(wheel: Path) -> None:
    name, content = pack()
    packed, built = zipfile.ZipFile(io.BytesIO(content)), zipfile.ZipFile(wheel)
    assert name == wheel.name
    assert packed.testzip() is None

    def told(archive: zipfile.ZipFile) -> dict[str, bytes]:
        return {each: archive.read(each) for each in archive.namelist() if ".dist-info/" not in each}

    assert told(packed) == told(built)


def test_fleet_finds_its_own_and_others_find_theirs(environment: Path, tmp_path: Path) -> None:
    code = "import workers, beat, config; print(workers.FOREIGN, beat.FOREIGN, config.FOREIGN)"
    assert run(environment / "python", "-c", code, where=tmp_path).stdout == "True True True\n"
    code = "import fleet.services as s; print(s.load('workers.control.app').__file__, s.config_file('valkey.conf'))"
    for path in run(environment / "python", "-c", code, where=tmp_path).stdout.split():
        assert Path(path).is_relative_to(environment.parent)
        assert "/fleet/_services/" in path


def test_its_commands_answer(environment: Path, tmp_path: Path) -> None:
    shown = run(environment / "fleet", "--help", where=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "push-task" in shown.stdout
    refused = run(environment / "fleet", "worker", "--host-id", "edge-1", where=tmp_path)
    assert refused.returncode == 4
    assert "host 'edge-1' has no credential at" in refused.stderr
    assert "fleet token create" in refused.stderr


def test_everything_on_one_machine_runs_from_it(environment: Path, tmp_path: Path) -> None:
    broker, flower = (str(port) for port in free_ports(2))
    ports = ("--broker-port", broker, "--flower-port", flower)
    up = Up(tmp_path / "state", *ports, program=(str(environment / "fleet"),), PYTHONPATH="")
    try:
        up.read_until("Ctrl-C ends all of it")
        pushed = up.fleet("push-task", "fleet.host.ping", "--host", "laptop", "--wait")
        assert pushed.returncode == 0, pushed.stderr + up.logs()
        assert all(str(environment) in child.cmdline()[0] for child in up.family() if "fleet" in child.cmdline())
        up.stop()
    finally:
        up.end()
