"""Replacing: a new container takes the name of an old one, which comes back if the new one does not start.

    new is made, under a name of its own ─▶ old stops and steps aside ─▶ new takes the name, starts ─▶ old is removed

The new container's labels say whom it replaces, and names say how far that is, so that whoever finds them after a crash
goes on from there, in either direction. Each step looks first whether it has been done.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fleet import errors
from fleet.contracts.containers import Label
from workers.host.containers.building import Owner
from workers.host.containers.engine import Engine

#: For the Engine to remove what a container wrote, and to start one.
SLOW_SECONDS = 60.0
#: How long a container has that says nothing of it (Docker Engine API, v1.41, StopTimeout).
_STOP_SECONDS = 10
_RUNS = frozenset({"running", "restarting", "paused"})


class Old(NamedTuple):
    """The container whose place is taken."""

    docker_id: str
    running: bool

    def labels(self) -> dict[str, str]:
        """Return the labels by which the new one says so."""
        return {
            Label.REPLACES.value: self.docker_id,
            Label.REPLACES_RUNNING.value: "true" if self.running else "false",
        }


def name_of_new(owner: Owner) -> str:
    return f"fleet-new-{owner.short}"


def name_of_old(owner: Owner) -> str:
    return f"fleet-old-{owner.short}"


def find(engine: Engine, name: str) -> Old | None:
    """Return the container of that name; None where there is none."""
    details = look(engine, name)
    if details is None or _name(details) != name:
        return None
    return Old(details["Id"], details["State"]["Status"] in _RUNS)


def replaced(details: Mapping[str, Any]) -> Old | None:
    """Return whom a new container (by inspect) replaces."""
    labels = details["Config"].get("Labels") or {}
    docker_id = labels.get(Label.REPLACES)
    return Old(docker_id, labels.get(Label.REPLACES_RUNNING) == "true") if docker_id else None


def take_place(engine: Engine, new_id: str, old: Old, owner: Owner, name: str) -> None:
    """Stop the old container and give its name to the new one."""
    details = look(engine, old.docker_id)
    if details is not None:
        if details["State"]["Status"] in _RUNS:
            seconds = details["Config"].get("StopTimeout")
            engine.stop(old.docker_id, timeout_seconds=_STOP_SECONDS if seconds is None else seconds)
        if _name(details) == name:
            rename(engine, old.docker_id, name_of_old(owner))
    rename(engine, new_id, name)


def give_back(engine: Engine, news: list[str], owner: Owner, name: str) -> None:
    """Give name and place back to the old container, where that has been begun; `news` are those made for the run."""
    old = next((old for new in news if (details := look(engine, new)) and (old := replaced(details))), None)
    if old is None:
        old = find(engine, name_of_old(owner))
    if old is None or (details := look(engine, old.docker_id)) is None:
        return
    for new in news:
        kill(engine, new)
        if (made := look(engine, new)) and _name(made) == name:
            rename(engine, new, name_of_new(owner))
    if _name(details) == name_of_old(owner):
        rename(engine, old.docker_id, name)
    if old.running:
        engine.ask("POST", f"/containers/{old.docker_id}/start", container=old.docker_id, seconds=SLOW_SECONDS)


def look(engine: Engine, reference: str) -> dict[str, Any] | None:
    """Return the Engine's answer to inspect; None where there is no such container."""
    try:
        return engine.inspect(reference)
    except errors.EngineRefused as exc:
        if exc.kind != "no_such_container":
            raise
        return None


def rename(engine: Engine, docker_id: str, name: str) -> None:
    details = engine.inspect(docker_id)
    if _name(details) != name:
        engine.ask(
            "POST",
            f"/containers/{docker_id}/rename",
            about=f"container {name!r}",
            kinds={409: "name_in_use"},
            parameters={"name": name},
        )


def kill(engine: Engine, docker_id: str) -> None:
    """End a container at once; one that does not run, or is not there, is left as it is."""
    try:
        engine.ask(
            "POST",
            f"/containers/{docker_id}/kill",
            container=docker_id,
            kinds={409: "not_running"},
            seconds=SLOW_SECONDS,
        )
    except errors.EngineRefused as exc:
        if exc.kind not in {"not_running", "no_such_container"}:
            raise


def remove(engine: Engine, docker_id: str) -> None:
    """Remove a container and its unnamed volumes, whatever it does; one that has gone is none."""
    try:
        engine.ask(
            "DELETE",
            f"/containers/{docker_id}",
            container=docker_id,
            kinds={409: "being_removed"},
            parameters={"force": "1", "v": "1"},
            seconds=SLOW_SECONDS,
        )
    except errors.EngineRefused as exc:
        if exc.kind not in {"being_removed", "no_such_container"}:
            raise


def _name(details: Mapping[str, Any]) -> str:
    return str(details["Name"]).removeprefix("/")
