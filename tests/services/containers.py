"""The container tasks of a host on some Engine, wired as a session wires them, under a policy of a test's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet.settings import Settings
from workers.host.containers.engine import Engine
from workers.host.tasks.containers import ContainerTasks
from workers.host.tasks.wiring import tasks_of


def write_policy(path: Path, **keys: Any) -> Path:
    """Write a host's policy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[containers]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items()))
    path.chmod(0o600)
    return path


def container_tasks(engine: Engine, directory: Path, **policy: Any) -> ContainerTasks:
    """Return the container tasks of host "edge"; `policy` has the keys of its policy, `directory` its state."""
    path = write_policy(directory / "config" / "policy.toml", **policy) if policy else None
    settings = Settings(state_dir=directory / "state", policy_file=path, host_id="edge")
    return tasks_of(settings, engine, host="edge", secrets=None, interrupted=())[0]


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return f'"{value}"'
