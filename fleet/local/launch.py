"""Launches: how the worker of a host was started last, so that whoever starts it again starts it the same way.

Its owner may have switched off commands by a flag, a variable or a settings file of its own. The REST API starts a
worker from a process that has none of these, so every worker that becomes the host's writes down how it was started.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet import credentials, environment, errors

#: In the directory of the host.
FILE = "worker.launch.json"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a worker is started."""

    #: options of `fleet worker`
    arguments: tuple[str, ...] = ()
    #: the settings file that was named
    config: Path | None = None
    #: where it was started: paths of its settings are relative to that, and a `fleet.toml` there counts
    directory: Path
    #: variables that make it what it is; None for those of whoever starts it
    variables: Mapping[str, str] | None = None


def of_this_process(*, arguments: tuple[str, ...], config: Path | None) -> Launch:
    """Return how this worker was started."""
    variables = environment.of_workers(environment.inherited())
    named = variables.pop("FLEET_CONFIG", None)
    file = config or (Path(named) if named else None)
    return Launch(
        arguments=arguments,
        config=file.absolute() if file else None,
        directory=Path.cwd(),
        variables=variables,
    )


@contextmanager
def noted(directory: Path, launch: Launch) -> Iterator[None]:
    """Have it on disk from the beginning of the block on; raises `errors.LocalFault` where it cannot be written."""
    said = {**asdict(launch), "config": launch.config and str(launch.config), "directory": str(launch.directory)}
    remedy = "make room or permit it; nobody could start this worker again as it is"
    credentials.write_private(directory / FILE, json.dumps(said), what="note of how it was started", remedy=remedy)
    yield


def last(directory: Path) -> Launch | None:
    """Return how the worker of a host's directory was started last; None where none was ever.

    Raises `errors.LocalFault` where that cannot be read.
    """
    path = directory / FILE
    try:
        said = json.loads(credentials.read_private(path, what="note of how it was started"))
        return Launch(
            arguments=tuple(str(word) for word in said["arguments"]),
            config=Path(said["config"]) if said["config"] else None,
            directory=Path(said["directory"]),
            variables={str(name): str(value) for name, value in said["variables"].items()},
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, errors.CredentialUnusable) as exc:
        raise errors.LocalFault(
            f"{path}: it cannot be read how the worker was started last ({exc})",
            remedy="start it where it runs: `fleet worker start`",
        ) from exc
