"""What a process hands on to those that it starts."""

from pathlib import Path

import pytest

from fleet import environment
from fleet.local import launch
from fleet.local.launch import Launch
from fleet.settings import SECRETS, Settings

#: What a worker has a use for; everything else is the control plane's, and a new setting has to be told apart.
OF_WORKERS = {
    *("broker_url", "broker_ca", "state_dir", "host_id", "advertise_host", "advertise_port", "credential"),
    *(
        "docker_url",
        "policy_file",
        "shell",
        "unlisted",
        "stay_when_ended",
        "secrets_dir",
        "concurrency",
        "task_memory",
        "stop_grace",
    ),
    *("log_level", "log_format", "health_address", "allow_unsafe_broker", "inventory_interval"),
}


def test_a_worker_gets_its_settings_and_none_of_the_control_planes() -> None:
    every = {f"FLEET_{name.upper()}": "rediss://10.0.0.7:6379/0" for name in Settings.model_fields}
    assert {name.removeprefix("FLEET_").lower() for name in environment.of_workers(every)} == OF_WORKERS
    files = {f"FLEET_{name.upper()}_FILE": "/nonexistent" for name in SECRETS}
    assert environment.of_workers(files) == {}


@pytest.mark.parametrize(
    ("url", "is_handed_on"),
    [
        ("rediss://10.0.0.7:6379/0", True),
        ("rediss://fleet:secret@10.0.0.7:6379/0", False),
        ("rediss://:secret@10.0.0.7:6379/0", False),
        ("nonsense", False),
    ],
)
def test_where_the_broker_is_is_handed_on_and_who_the_control_plane_is_there_is_not(
    tmp_path: Path, url: str, *, is_handed_on: bool
) -> None:
    (tmp_path / "url").write_text(f"{url}\n")
    for given in ({"FLEET_BROKER_URL": url}, {"FLEET_BROKER_URL_FILE": str(tmp_path / "url")}):
        assert (environment.of_workers(given) == given) is is_handed_on


def test_a_worker_has_the_variables_of_its_owner_or_of_whoever_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_SHELL", "true")
    monkeypatch.setenv("FLEET_DATABASE_URL", "postgresql://fleet:secret@db/fleet")
    monkeypatch.setenv("DOCKER_HOST", "unix:///ours.sock")
    monkeypatch.setenv("OTHER", "kept")
    found = environment.for_worker()
    assert (found["FLEET_SHELL"], found["DOCKER_HOST"], found["OTHER"]) == ("true", "unix:///ours.sock", "kept")
    assert "FLEET_DATABASE_URL" not in found
    owners = environment.for_worker({"FLEET_UNLISTED": "true"})
    assert (owners["FLEET_UNLISTED"], owners["OTHER"]) == ("true", "kept")
    assert not {"FLEET_SHELL", "DOCKER_HOST", "FLEET_DATABASE_URL"} & owners.keys()


def test_how_a_worker_was_started_is_kept_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.last(tmp_path) is None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEET_CONFIG", "own.toml")
    monkeypatch.setenv("FLEET_SHELL", "false")
    how = launch.of_this_process(arguments=("--no-shell",), config=None)
    assert (how.config, how.directory, (how.variables or {})["FLEET_SHELL"]) == (
        tmp_path / "own.toml",
        tmp_path,
        "false",
    )
    assert launch.of_this_process(arguments=(), config=Path("other.toml")).config == tmp_path / "other.toml"
    with launch.noted(tmp_path, how):
        assert launch.last(tmp_path) == how
    plain = Launch(directory=tmp_path, variables={})
    with launch.noted(tmp_path, plain):
        assert launch.last(tmp_path) == plain
