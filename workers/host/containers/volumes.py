"""Named volumes: those that a spec names, what they really are, and those that a run has made.

A volume may be a directory or a disk of the host in disguise, by the options of its driver, also one that was made long
before. So each is looked at before it is used, and once more when the container has it and nobody can change it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fleet import errors
from fleet.contracts.container_parts import VolumeMount
from fleet.contracts.containers import Label
from workers.host.containers import calls
from workers.host.containers.engine import Engine

LOCAL = "local"
#: For the work of a driver, which may be on another machine.
MAKING_SECONDS = 60.0
#: File systems that the local driver may mount where the policy grants its options: none of them shows the host's.
_ELSEWHERE = frozenset({"nfs", "nfs4", "cifs", "tmpfs"})
#: Options of mount(8) that make the type of no account.
_MOVES = frozenset({"bind", "rbind", "move", "remount"})


@dataclass(frozen=True)
class Look:
    """What there is of a volume, or is to be."""

    name: str
    driver: str
    options: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    #: whether it is there
    made: bool = False

    @classmethod
    def wanted(cls, mount: VolumeMount) -> Self:
        return cls(mount.name, mount.driver or LOCAL, mount.driver_options)

    def objection(self) -> str:
        """Say why no policy lets a container have it; empty where one may."""
        if self.driver != LOCAL or not self.options:
            return ""
        options = {option.strip().lower() for option in self.options.get("o", "").split(",")}
        kind, device = self.options.get("type", ""), self.options.get("device", "")
        here = device.startswith("/") and not (kind == "cifs" and device.startswith("//"))
        if kind in _ELSEWHERE and not options & _MOVES and not here:
            return ""
        return f"volume {self.name} is a directory or disk of the host, by its driver's options; use `binds`"


def look(engine: Engine, name: str) -> Look | None:
    """Return what there is of a volume; None where there is none of that name."""
    try:
        return _look(
            engine.ask("GET", f"/volumes/{calls.part(name)}", about=f"volume {name!r}", kinds={404: "no_such_volume"})
        )
    except errors.EngineRefused as exc:
        if exc.kind != "no_such_volume":
            raise
        return None


def make(engine: Engine, mount: VolumeMount, *, labels: Mapping[str, str]) -> Look:
    """Make a volume and return what there is now: one that somebody else made meanwhile is that, without our labels."""
    wanted = Look.wanted(mount)
    body = {"Name": wanted.name, "Driver": wanted.driver, "DriverOpts": dict(wanted.options), "Labels": dict(labels)}
    return _look(
        engine.ask("POST", "/volumes/create", about=f"volume {wanted.name!r}", body=body, seconds=MAKING_SECONDS)
    )


def of_run(engine: Engine, run_id: str) -> list[str]:
    """Return the names of the volumes that a run has made."""
    filters = json.dumps({"label": [f"{Label.RUN}={run_id}"]})
    return sorted(v["Name"] for v in engine.ask("GET", "/volumes", parameters={"filters": filters})["Volumes"] or ())


def remove_unused(engine: Engine, names: list[str]) -> tuple[str, ...]:
    """Remove those of these volumes that no container has; return which they were."""
    removed = []
    for name in names:
        try:
            engine.ask(
                "DELETE",
                f"/volumes/{calls.part(name)}",
                about=f"volume {name!r}",
                kinds={404: "no_such_volume", 409: "volume_in_use"},
                seconds=MAKING_SECONDS,
            )
        except errors.EngineRefused as exc:
            if exc.kind not in {"no_such_volume", "volume_in_use"}:
                raise
        else:
            removed.append(name)
    return tuple(removed)


def _look(details: Mapping[str, Any]) -> Look:
    return Look(
        name=details["Name"],
        driver=details["Driver"],
        options=details.get("Options") or {},
        labels=details.get("Labels") or {},
        made=True,
    )
