"""Asking the health endpoints of a fleet's processes, as anybody on the machine can."""

import http.client
import json
from pathlib import Path
from typing import Any

from fleet.local import endpoint
from fleet.local.endpoint import Found
from tests.services.system import System
from tests.services.waiting import until


def file_of(system: System, host: str | None) -> Path:
    """Return the file with the address of a host's worker, or of the control worker."""
    if host is None:
        return system.directory / endpoint.CONTROL_FILE
    return system.settings.host_dir(host) / endpoint.WORKER_FILE


def listening(system: System, host: str | None = None) -> Found:
    """Return where a worker, or the control worker, listens, once it does."""
    return until(lambda: endpoint.find(file_of(system, host)), "it says where it listens")


def get(found: Found, path: str) -> tuple[int, str]:
    """Return status and body of a page."""
    connection = http.client.HTTPConnection(found.host, found.port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def ask(found: Found, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and answer of a question."""
    status, body = get(found, path)
    said: dict[str, Any] = json.loads(body)
    return status, said


def wrong(found: Found, path: str = "/health/ready") -> list[str]:
    """Return the names of the checks that fail."""
    return [check["name"] for check in ask(found, path)[1]["checks"] if not check["ok"]]
