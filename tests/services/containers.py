"""The container tasks of a host on some Engine, wired as a session wires them, under a policy of a test's own."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.contracts.secrets import SecretRef
from fleet.settings import Settings
from workers.host.containers.engine import Engine
from workers.host.containers.keeping import SecretFiles
from workers.host.containers.making import Secrets
from workers.host.containers.undoing import Undoing
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
    return tasks_and_undoing(engine, directory, **policy)[0]


def tasks_and_undoing(
    engine: Engine, directory: Path, *, secrets: Secrets | None = None, interrupted: Collection[str] = (), **policy: Any
) -> tuple[ContainerTasks, Undoing]:
    """Return them, and what undoes: a thread that is not started; `look` does what it would do next."""
    path = write_policy(directory / "config" / "policy.toml", **policy) if policy else None
    settings = Settings(state_dir=directory / "state", policy_file=path, host_id="edge")
    return tasks_of(settings, engine, host="edge", secrets=secrets, interrupted=interrupted)


class KeptSecrets:
    """The host's real files of secrets, with values that nobody has to be asked for."""

    def __init__(self, directory: Path, state: Path) -> None:
        """`directory` is on a tmpfs, `state` the host's."""
        self.files = SecretFiles(directory, state)
        self.directory = directory
        self.settle = self.files.settle
        self.done = self.files.done
        self.discard = self.files.discard

    def prepare(self, run_id: str, refs: Sequence[SecretRef]) -> Path:
        return self.files.write(run_id, {ref.target: f"value of {ref.name}".encode() for ref in refs})


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
