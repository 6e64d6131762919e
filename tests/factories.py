"""Values for tests: reports as hosts and principals write them, containers, facts."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import redis

from fleet import names
from fleet.contracts.containers import Container
from fleet.contracts.hosts import Facts
from fleet.contracts.reports import Kind, Queued, Report


def report(
    sender: str, kind: Kind, *, epoch: int = 1, seq: int = 1, at: float = 1_750_000_000.5, **more: Any
) -> Report:
    return Report(sender=sender, kind=kind, epoch=epoch, seq=seq, at=at, **more)


def queued(run: str, *, by: str = "alice", **more: Any) -> Report:
    """Return a principal's report of a push."""
    data = {
        "host": names.host_of_run(run),
        "task": "fleet.containers.restart",
        "arguments": {"container": "web"},
        "description": "new certificate",
        "submitted_by": by,
        "submitted_at": 1_750_000_000.25,
        "message": json.dumps({"body": run}),
        **more,
    }
    return Report(
        sender=names.principal_sender(by),
        kind=Kind.RUN_QUEUED,
        run=run,
        at=1_750_000_000.25,
        data=Queued.model_validate(data).model_dump(mode="json"),
    )


def life(run: str, *, first_seq: int = 1, epoch: int = 1) -> list[Report]:
    """Return what a host reports of a run that goes well."""
    host = names.host_of_run(run)
    steps: list[tuple[Kind, int | None, dict[str, Any]]] = [
        (Kind.RUN_ACCEPTED, None, {}),
        (Kind.RUN_STARTED, 1, {}),
        (Kind.RUN_PROGRESSED, 1, {"step": "stopping", "percent": 50.0}),
        (Kind.RUN_SUCCEEDED, 1, {"reply": {"container": "web"}, "duration_seconds": 0.25}),
    ]
    return [
        report(
            host,
            kind,
            run=run,
            attempt=attempt,
            data=data,
            epoch=epoch,
            seq=first_seq + index,
            at=1_750_000_001.0 + index,
        )
        for index, (kind, attempt, data) in enumerate(steps)
    ]


def push(client: "redis.Redis", *reports: Report) -> None:
    """Send reports as their senders do, each to the head of its sender's list, with a mark."""
    for each in reports:
        send_raw(client, each.sender, each.model_dump_json())


def send_raw(client: "redis.Redis", sender: str, item: str | bytes) -> None:
    client.lpush(names.reports(sender), item)
    client.sadd(names.REPORTS_DIRTY, sender)


def container(name: str, **more: Any) -> Container:
    values: dict[str, Any] = {
        "docker_id": name.encode().hex().ljust(64, "0")[:64],
        "name": name,
        "image": "busybox:latest",
        "state": "running",
        "status": "Up 3 minutes",
        "labels": {"tier": "edge"},
        "ports": [{"container_port": 80, "host_ip": "0.0.0.0", "host_port": 8080}],
        "created": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "started": datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
        **more,
    }
    return Container.model_validate(values)


def facts(**more: Any) -> Facts:
    values: dict[str, Any] = {
        "hostname": "edge-1.example",
        "address": "edge-1.example",
        "port": 8000,
        "fleet_version": "0.1.0",
        "python_version": "3.11.2",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.1.0",
        "architecture": "x86_64",
        "cpus": 4,
        "memory_bytes": 8 * 2**30,
        "docker_version": "29.1",
        **more,
    }
    return Facts.model_validate(values)


class HeldLease:
    """A lease that was put into the broker by hand; `held` follows the key, as the real one's does."""

    def __init__(self, client: "redis.Redis", token: str = "control-1") -> None:
        self.client = client
        self.token = token
        client.set(names.CONTROL_LEASE, token)

    def held(self) -> bool:
        return bool(self.client.get(names.CONTROL_LEASE) == self.token)


def deadline(seconds: float) -> float:
    return time.monotonic() + seconds
