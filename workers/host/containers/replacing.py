"""Replacing: a new container takes the name of an old one, which comes back if the new one does not start.

    new is made, under a name of its own ─▶ old stops and steps aside ─▶ new takes the name, starts ─▶ old is removed

The new container's labels say whom it replaces, and names say how far that is, so that whoever finds them after a crash
goes on from there, in either direction. Each step looks first whether it has been done.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from fleet import errors, logs
from fleet.contracts.containers import Label
from workers.host.containers import calls
from workers.host.containers.building import Owner
from workers.host.containers.engine import Engine

log = logs.get(__name__)

#: For the Engine to remove what a container wrote, and to start one.
SLOW_SECONDS = 60.0
#: How long a container has that says nothing of it (Docker Engine API, v1.41, StopTimeout).
_STOP_SECONDS = 10
_LOOK_AGAIN_SECONDS = 0.1
_RUNS = frozenset({"running", "restarting", "paused"})
_FULL_ID = re.compile(r"[0-9a-f]{64}")


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
    docker_id = labels.get(Label.REPLACES) or ""
    # The Engine would take a name for an id; Fleet writes full ids only.
    return Old(docker_id, labels.get(Label.REPLACES_RUNNING) == "true") if _FULL_ID.fullmatch(docker_id) else None


def take_place(engine: Engine, new_id: str, old: Old, owner: Owner, name: str) -> None:
    """Stop the old container and give its name to the new one."""
    details = look(engine, old.docker_id)
    if details is not None and details["State"]["Status"] in _RUNS:
        details = _stop(engine, details)
    if details is not None and _goes_by_itself(details):
        details = _await_removal(engine, old.docker_id)
    if details is not None and _name(details) == name:
        rename(engine, old.docker_id, name_of_old(owner))
    rename(engine, new_id, name)


def _stop(engine: Engine, details: Mapping[str, Any]) -> dict[str, Any] | None:
    """Stop a container; return what there is of it then, None where it has gone with that."""
    seconds = details["Config"].get("StopTimeout")
    try:
        engine.stop(details["Id"], timeout_seconds=_STOP_SECONDS if seconds is None else seconds)
    except errors.EngineRefused as exc:
        if exc.kind != "no_such_container":
            raise
    return look(engine, details["Id"])


def _goes_by_itself(details: Mapping[str, Any]) -> bool:
    """Say whether the Engine removes a container that does not run (`docker run --rm`), or is at it."""
    state = details["State"]["Status"]
    return state == "removing" or (state != "created" and bool(details["HostConfig"].get("AutoRemove")))


def _await_removal(engine: Engine, docker_id: str) -> dict[str, Any] | None:
    """Wait until the Engine has removed a container; return what there is of it still after 60 s."""
    ends = time.monotonic() + SLOW_SECONDS
    while (details := look(engine, docker_id)) is not None and time.monotonic() < ends:
        time.sleep(_LOOK_AGAIN_SECONDS)
    return details


def give_back(engine: Engine, news: list[str], owner: Owner, name: str) -> None:
    """Give name and place back to the old container, where that has been begun; `news` are those made for the run.

    What the Engine refuses of it is logged, and the rest is done: no later attempt would have more success.
    """
    old = next((old for new in news if (details := look(engine, new)) and (old := replaced(details))), None)
    if old is None:
        old = find(engine, name_of_old(owner))
    if old is None or (details := look(engine, old.docker_id)) is None:
        return
    if _name(details) not in {name, name_of_old(owner)}:
        return  # somebody has named it otherwise meanwhile, and looks after it
    for new in news:
        with _going_on("stop the container that was to replace it", old):
            kill(engine, new)
            if (made := look(engine, new)) and _name(made) == name:
                rename(engine, new, name_of_new(owner))
    with _going_on("rename it", old):
        rename(engine, old.docker_id, name)
    if old.running:
        with _going_on("start it", old):
            engine.ask(
                "POST", f"/containers/{calls.part(old.docker_id)}/start", container=old.docker_id, seconds=SLOW_SECONDS
            )


@contextmanager
def _going_on(what: str, old: Old) -> Iterator[None]:
    try:
        yield
    except errors.EngineRefused as exc:
        log.warning("replace.not_given_back", container=old.docker_id[:12], error=str(exc), next=f"{what} by yourself")


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
            f"/containers/{calls.part(docker_id)}/rename",
            about=f"container {name!r}",
            kinds={409: "name_in_use"},
            parameters={"name": name},
        )


def kill(engine: Engine, docker_id: str) -> None:
    """End a container at once; one that does not run, or is not there, is left as it is."""
    try:
        engine.ask(
            "POST",
            f"/containers/{calls.part(docker_id)}/kill",
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
            f"/containers/{calls.part(docker_id)}",
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
