"""Containers in Fleet's words: the Engine's summaries, normalised."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleet.contracts.containers import Container, Port
from workers.host.engine import Engine

#: How the Engine ends a status line where there is a health check (moby, container/health.go).
_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)$")


def from_summary(summary: Mapping[str, Any], *, started: datetime | None = None) -> Container:
    """Return the container that one entry of the Engine's list describes."""
    status = summary.get("Status") or ""
    health = _HEALTH.search(status)
    return Container(
        docker_id=summary["Id"],
        name=_own_name(summary.get("Names") or []),
        image=summary.get("Image") or "",
        state=summary.get("State") or "unknown",
        status=status,
        health=health[1] if health else None,
        ports=tuple(sorted((_port(port) for port in summary.get("Ports") or ()), key=_port_order)),
        labels=summary.get("Labels") or {},
        created=datetime.fromtimestamp(summary["Created"], UTC),
        started=started,
    )


def started_at(details: Mapping[str, Any]) -> datetime | None:
    """Return when a container was last started, from the Engine's answer to inspect; None if never."""
    moment = datetime.fromisoformat(details["State"]["StartedAt"])
    return moment if moment.year > 1 else None  # the Engine writes year 1 for "never"


def describe(engine: Engine, reference: str) -> Container:
    """Ask the Engine for one container, by name or id, and return it normalised."""
    details = engine.inspect(reference)
    (summary,) = engine.list_containers(docker_id=details["Id"])
    return from_summary(summary, started=started_at(details))


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
