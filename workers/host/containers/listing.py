"""Containers in Fleet's words: the Engine's summaries, normalised."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from fleet import errors
from fleet.contracts.containers import Container, Label, Port
from workers.host.containers.engine import Engine
from workers.host.containers.starts import started_at

#: How the Engine ends a status line where there is a health check (moby, container/health.go).
_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)$")
#: The longest state and health that the contract takes; every word of today's Engines is shorter.
_WORD = 16


def from_summary(summary: Mapping[str, Any], *, started: datetime | None = None) -> Container:
    """Return the container that one entry of the Engine's list describes."""
    status = summary.get("Status") or ""
    ports = [_port(port) for port in summary.get("Ports") or () if port.get("PrivatePort")]
    return Container(
        docker_id=summary["Id"],
        name=_own_name(summary.get("Names") or []),
        image=summary.get("Image") or "",
        state=(summary.get("State") or "unknown")[:_WORD],
        status=status,
        health=_health(summary.get("Health"), status),
        ports=tuple(sorted(ports, key=_port_order)),
        labels={name: value or "" for name, value in (summary.get("Labels") or {}).items()},
        created=datetime.fromtimestamp(summary["Created"], UTC),
        started=started,
    )


def everything(engine: Engine) -> tuple[Container, ...]:
    """Return all containers of the host: one list call, and an inspect for each start that is not known yet."""
    summaries = engine.list_containers()
    engine.starts.keep({summary["Id"] for summary in summaries})
    return tuple(_with_start(engine, summary) for summary in summaries)


def running(engine: Engine) -> tuple[Container, ...]:
    """Return the containers that run."""
    return tuple(_with_start(engine, summary) for summary in engine.list_containers(everything=False))


def ids_of_run(engine: Engine, run_id: str) -> list[str]:
    """Return the Engine's ids of the containers that a run has made; there is one at most, unless somebody copies
    labels."""
    filters = json.dumps({"label": [f"{Label.RUN}={run_id}"]})
    return [each["Id"] for each in engine.ask("GET", "/containers/json", parameters={"all": "1", "filters": filters})]


def describe(engine: Engine, reference: str) -> Container:
    """Ask the Engine for one container, by name or id, and return it normalised.

    Raises `errors.EngineRefused` of kind `no_such_container`, also where it goes away between the two questions.
    """
    return with_details(engine, reference)[0]


def with_details(engine: Engine, reference: str) -> tuple[Container, dict[str, Any]]:
    """Return one container, and the Engine's own answer to inspect; raises as `describe` does."""
    details = engine.inspect(reference)
    for summary in engine.list_containers(docker_id=details["Id"]):
        return from_summary(summary, started=started_at(details)), details
    raise errors.EngineRefused(
        f"container {reference!r}: it was removed", kind="no_such_container", remedy="`fleet ps` shows what there is"
    )


def _with_start(engine: Engine, summary: Mapping[str, Any]) -> Container:
    started = None
    if summary.get("State") != "created":
        with suppress(errors.EngineRefused):  # removed in between; the next look will not list it
            started = engine.starts.of(summary["Id"])
    return from_summary(summary, started=started)


def _health(reported: Mapping[str, Any] | None, status: str) -> str | None:
    """Return the health: Engines of API 1.52 and newer say it, others only in the status line."""
    if reported and reported.get("Status"):
        word = str(reported["Status"])[:_WORD]
        return None if word == "none" else word
    match = _HEALTH.search(status)
    return match[1] if match else None


def _own_name(names: list[str]) -> str:
    """Return the container's name among its names: those of links have a second slash."""
    own = [name.removeprefix("/") for name in names if name.count("/") == 1]
    return own[0] if own else ""


def _port(port: Mapping[str, Any]) -> Port:
    return Port(
        container_port=port["PrivatePort"],
        protocol=port.get("Type") or "tcp",
        host_ip=port.get("IP") or None,
        host_port=port.get("PublicPort") or None,
    )


def _port_order(port: Port) -> tuple[int, str, str, int]:
    return port.container_port, port.protocol, port.host_ip or "", port.host_port or 0
