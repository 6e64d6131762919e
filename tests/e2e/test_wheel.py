"""The wheel, installed beside somebody else's packages named `workers`, `beat` and `config`.

Everything comes from the wheel and nothing from the checkout; the libraries are those of the running environment.
"""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.services.ports import free_ports
from tests.services.up import Up

pytestmark = pytest.mark.xdist_group("deadlines")

REPOSITORY = Path(__file__).parents[2]
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


def build(project: Path, into: Path) -> Path:
    """Build a wheel without asking any package index."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(into), str(project)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(into.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(REPOSITORY, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and the foreign packages; returns its `bin`."""
    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / "pyproject.toml").write_text(FOREIGN)
    for name in ("workers", "beat", "config"):
        (foreign / name).mkdir()
        (foreign / name / "__init__.py").write_text("FOREIGN = True\n")
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    wheels = [str(wheel), str(build(foreign, tmp_path_factory.mktemp("foreign-wheel")))]
    install = [sys.executable, "-m", "pip", "--python", str(home), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, *wheels], check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    packages = next(home.glob("lib/python*/site-packages"))
    # A path in a .pth file is searched after the environment's own packages, and its own .pth files (an editable
    # install of this checkout) mean nothing there.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


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
