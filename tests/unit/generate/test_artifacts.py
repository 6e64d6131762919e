"""What is written: complete, the same each time, without a secret, and without a word of what was left out."""

import itertools
import re
import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from fleet import errors
from fleet.generate import Deployment, generate, render
from tests.services.availability import missing

URL = "rediss://broker.example:6380/0"
#: role × with registry × with its address × with a CA of its own
ALL = [
    pytest.param(role, registry, url, own_ca, id=f"{role}-{'listed' if registry else 'unlisted'}-{bool(url)}-{own_ca}")
    for role, registry, url, own_ca in itertools.product(("host", "control"), (True, False), (URL, None), (True, False))
]


def texts(role: str, *, registry: bool = True, url: str | None = URL, own_ca: bool = False) -> dict[str, str]:
    """Return everything that a person reads; the wheel is the program, whole."""
    wanted = Deployment.of(role=role, registry_url=url, host_id="edge-7", registry=registry, own_ca=own_ca)
    files = render("all", wanted)
    return {name: content.decode() for name, content in files.items() if not name.endswith(".whl")}


@pytest.mark.parametrize(("role", "registry", "url", "own_ca"), ALL)
def test_without_registry_there_is_no_word_of_it(role: str, registry: bool, url: str | None, own_ca: bool) -> None:  # noqa: FBT001
    written = texts(role, registry=registry, url=url, own_ca=own_ca)
    found = {
        name
        for name, text in written.items()
        if re.search("registry|presence|inventory|heartbeat|broker.example", text, re.IGNORECASE)
    }
    if not registry:
        assert found == set()
        assert ("FLEET_UNLISTED" in written["compose.yaml"]) is (role == "host")
    elif url:
        service = {"host": "fleet-worker.service", "control": "fleet-control.service"}[role]
        assert found == {"Dockerfile", "compose.yaml", service}


@pytest.mark.parametrize(("role", "registry", "url", "own_ca"), ALL)
def test_systemd_finds_nothing_to_say_of_the_unit(
    tmp_path: Path,
    role: str,
    registry: bool,  # noqa: FBT001
    url: str | None,
    own_ca: bool,  # noqa: FBT001
) -> None:
    written = generate(
        "systemd",
        role=role,
        output_dir=tmp_path,
        host_id="edge-7",
        registry=registry,
        registry_url=url,
        own_ca=own_ca,
    )
    assert [said_by_systemd(unit) for unit in written.values()] == [""]


def test_systemd_reads_a_path_as_it_was_given(tmp_path: Path) -> None:
    executable = tmp_path / "50 %n $HOME ${HOME} ; #" / "fleet"
    executable.parent.mkdir()
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    wanted = {"role": "host", "host_id": "edge-7", "executable": str(executable)}
    unit = generate("systemd", output_dir=tmp_path / "out", **wanted)["fleet-worker.service"]
    assert said_by_systemd(unit) == ""
    executable.unlink()
    assert f"Command {executable} is not executable" in said_by_systemd(unit)


def said_by_systemd(unit: Path) -> str:
    """Return what `systemd-analyze verify` has to say of a unit: nothing where all is well."""
    program = shutil.which("systemd-analyze")
    if program is None:
        missing("not installed: systemd-analyze (systemd)")
    done = subprocess.run([str(program), "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is (done.stderr == "")
    return done.stdout + done.stderr


@pytest.mark.parametrize("role", ["host", "control"])
def test_a_compose_file_is_bounded_and_looked_after(role: str) -> None:
    [(name, service)] = yaml.safe_load(texts(role)["compose.yaml"])["services"].items()
    assert service["healthcheck"]["test"] == [
        "CMD",
        "fleet",
        "health",
        "worker" if role == "host" else name,
        "--ready",
        "--quiet",
    ]
    assert service["restart"] == "unless-stopped"
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    for named in ("stop_grace_period", "mem_limit", "pids_limit", "secrets"):
        assert service[named]
    assert service["user"] == ("root" if role == "host" else "fleet")
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


@pytest.mark.parametrize("registry", [True, False])
def test_a_host_that_has_ended_for_good_is_not_started_for_ever(registry: bool) -> None:  # noqa: FBT001
    """Docker has no word for exit codes after which it is not to start again, and systemd has."""
    written = texts("host", registry=registry)
    [service] = yaml.safe_load(written["compose.yaml"])["services"].values()
    assert service["environment"]["FLEET_STAY_WHEN_ENDED"] == "true"
    assert "    FLEET_STAY_WHEN_ENDED=true \\\n" in written["Dockerfile"]
    unit = written["fleet-worker.service"]
    assert f"RestartPreventExitStatus={'' if registry else '75 '}77\n" in unit
    assert "FLEET_STAY_WHEN_ENDED" not in unit


@pytest.mark.parametrize("role", ["host", "control"])
def test_secrets_come_from_files_alone(role: str) -> None:
    for name, text in texts(role).items():
        for variable in ("FLEET_TOKEN", "FLEET_BROKER_PASSWORD", "FLEET_DATABASE_URL"):
            assert not re.search(rf"{variable}\s*[=:]", text), name


def test_requirements_are_pins_of_fleet_and_all_that_it_needs() -> None:
    lines = texts("host")["requirements.txt"].splitlines()
    pins = [line for line in lines if not line.startswith(("#", "--"))]
    assert [line for line in lines if line.startswith("--")] == ["--find-links wheels"]
    named = {Requirement(pin).name: str(Requirement(pin).specifier) for pin in pins}
    assert list(named) == sorted(named)
    assert all(re.fullmatch("==[^*]+", version) for version in named.values())
    assert {"dockfleet", "celery", "redis", "psycopg-binary", "jinja2", "pydantic-core"} <= named.keys()
    assert not {"pytest", "ruff", "mypy"} & named.keys(), "what only development needs"
    assert texts("host")["requirements.txt"] == texts("control")["requirements.txt"]


def test_the_same_again_is_the_same() -> None:
    wanted = Deployment.of(role="host", host_id="edge-7")
    assert render("all", wanted) == render("all", wanted)


def test_the_wheel_holds_fleet_and_its_services() -> None:
    files = render("requirements", Deployment.of(role="host"))
    [name] = [name for name in files if name.endswith(".whl")]
    inside = set(zipfile.ZipFile(BytesIO(files[name])).namelist())
    assert {
        "fleet/__init__.py",
        "fleet/_services/workers/host/app.py",
        "fleet/_services/config/generate/host.service.j2",
    } <= inside
    assert not [each for each in inside if "__pycache__" in each or each.startswith(("tests", "workers"))]


@pytest.mark.parametrize("kind", ["compose", "systemd"])
def test_a_host_that_is_not_named_is_asked_for(kind: str) -> None:
    with pytest.raises(errors.InvalidValue, match="host id: None is missing"):
        render(kind, Deployment.of(role="host"))
    assert render(kind, Deployment.of(role="control"))
    assert render("dockerfile", Deployment.of(role="host"))
