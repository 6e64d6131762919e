"""`fleet health`: alive or not, for a container's HEALTHCHECK, systemd and people.

It asks the endpoint of the worker or control worker on this machine, and where there is none, or its address is nowhere
to be found, the broker: that knows by a heartbeat or by the lease whether there is one somewhere.
"""

import json
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import invocation, render
from fleet.cli.grammar import Command
from fleet.cli.tables import Column
from fleet.cli.types import HOST_ID
from fleet.health import HANGS_SECONDS, Question

if TYPE_CHECKING:
    from fleet.local.endpoint import Found
    from fleet.settings import Settings

#: The endpoint waits for nothing, so whoever has not answered by then hangs.
_ANSWERS_WITHIN_SECONDS = 5.0
_LARGEST_ANSWER = 64 * 1024
_OF_CHECKS = ("name", "ok", "text", "age_seconds", "counts_for")
_COLUMNS = (
    Column(heading="PART", value=lambda row: row["part"]),
    Column(heading="CHECK", value=lambda row: row["check"]),
    Column(heading="HEALTH", value=lambda row: row["health"], state=True),
    Column(heading="FINDING", value=lambda row: row["text"], wraps=True),
)


@click.command(
    "health",
    cls=Command,
    examples=("fleet health", "fleet health worker --ready", "fleet health control --live --quiet"),
)
@click.argument("part", required=False, type=click.Choice(["worker", "control"]))
@click.option("--host-id", type=HOST_ID, help="Host of the worker.  [default: FLEET_HOST_ID, then the hostname]")
@click.option("--live", "question", flag_value="live", help="Only whether it can still do something about itself.")
@click.option("--ready", "question", flag_value="ready", help="Whether it can do container work, too.")
@click.pass_context
def command(ctx: click.Context, *, part: str | None, host_id: str | None, question: str | None) -> None:
    """Say whether a worker or the control plane is alive and at work: exit code 0 or 1.

    Without an argument it looks at what belongs to this machine: a worker that has a credential here, and the control
    plane where its database is here. It asks their health endpoints (FLEET_HEALTH_ADDRESS). Where there is none, it
    asks the broker, which knows of heartbeats and of the control plane's lease.

    --live is for whoever ends a process that hangs, --ready for whoever waits until work can be pushed. A host that is
    paused or draining is as ready as before.
    """
    settings = invocation.current().settings(host_id=host_id)
    asked = Question(question or Question.HEALTHY)
    parts = [part] if part else _parts_here(settings)
    records = [_worker(settings, asked) if name == "worker" else _control(settings, asked) for name in parts]
    if not invocation.current().quiet:
        if invocation.current().format == "table":
            rows = [{"part": record["part"], **row} for record in records for row in _rows(record, asked)]
            render.listing(rows, columns=_COLUMNS, key="part", empty="")
        else:
            render.listing(records, columns=_COLUMNS, key="part", empty="")
    ctx.exit(0 if all(record["healthy"] for record in records) else 1)


def _parts_here(settings: "Settings") -> list[str]:
    has_worker = settings.credential_path(settings.resolved_host_id).exists()
    has_database = settings.database_url is not None or (settings.state_dir / "fleet.db").exists()
    return [*(["worker"] if has_worker else []), *(["control"] if has_database or not has_worker else [])]


def _worker(settings: "Settings", asked: Question) -> dict[str, Any]:
    from fleet.local import endpoint

    host = settings.resolved_host_id
    found = endpoint.find(settings.host_dir(host) / endpoint.WORKER_FILE)
    return _ask("worker", host, found, asked) if found else _worker_by_heartbeat(settings, host, asked)


def _control(settings: "Settings", asked: Question) -> dict[str, Any]:
    from fleet.local import endpoint

    found = endpoint.find(settings.state_dir / endpoint.CONTROL_FILE)
    return _ask("control", None, found, asked) if found else _control_by_lease(settings)


def _ask(part: str, host: str | None, found: "Found", asked: Question) -> dict[str, Any]:
    """Ask an endpoint; a process that lives and does not answer hangs."""
    import http.client

    from fleet.local import endpoint

    connection = http.client.HTTPConnection(found.host, found.port, timeout=_ANSWERS_WITHIN_SECONDS)
    try:
        connection.request("GET", endpoint.PATHS[asked])
        answer = json.loads(connection.getresponse().read(_LARGEST_ANSWER))
        checks = [{name: check[name] for name in _OF_CHECKS} for check in answer["checks"]]
        wrong = "; ".join(f"{check['name']}: {check['text']}" for check in checks if _state(check, asked) == "fail")
        return {
            **_record(part, host, healthy=answer["ok"] is True, finding=wrong or "all is well", source=found.url),
            "availability": answer["availability"],
            "checks": checks,
        }
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as exc:
        reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        finding = f"process {found.process.pid} lives, and does not answer at {found.url} ({reason})"
        return _record(part, host, healthy=False, finding=finding, source=found.url)
    finally:
        connection.close()


def _worker_by_heartbeat(settings: "Settings", host: str, asked: Question) -> dict[str, Any]:
    from fleet import credentials, errors, presence

    try:
        address = None
        if (path := settings.credential_path(host)).exists():
            address = credentials.broker(credentials.load(path, host=host), settings)
        with invocation.broker(settings, address=address) as client:
            beat = presence.read(client, [host])[host]
    except (errors.Unreachable, errors.CredentialUnusable) as exc:
        return _record("worker", host, healthy=False, finding=str(exc))
    if beat is None:
        return _record("worker", host, healthy=False, finding=f"{host} has no heartbeat: its worker does not run")
    if beat.loop_age_seconds is not None and beat.loop_age_seconds > HANGS_SECONDS:
        finding = f"{host} has a heartbeat, but consumed nothing for {beat.loop_age_seconds:.0f} s"
        return _record("worker", host, healthy=False, finding=finding)
    if asked is Question.READY and (beat.loop_age_seconds is None or not beat.docker_reachable):
        missing = "its Docker Engine does not answer" if beat.loop_age_seconds is not None else "does not consume yet"
        return _record("worker", host, healthy=False, finding=f"{host} is alive, but {missing}")
    return _record(
        "worker", host, healthy=True, finding=f"{host} is alive by its heartbeat, {beat.in_hand} tasks in hand"
    )


def _control_by_lease(settings: "Settings") -> dict[str, Any]:
    """Say whether there is a control worker somewhere; of one on another machine nothing more is known."""
    from fleet import errors, names

    try:
        with invocation.broker(settings) as client:
            alive = bool(client.exists(names.CONTROL_LEASE))
    except errors.Unreachable as exc:
        return _record("control", None, healthy=False, finding=str(exc))
    finding = "a control worker holds the lease" if alive else "no control worker holds the lease"
    return _record("control", None, healthy=alive, finding=finding)


def _record(
    part: str,
    host: str | None,
    *,
    healthy: bool,
    finding: str,
    source: str = "broker",
) -> dict[str, Any]:
    """Return the shape that programs read; `checks` is None where no endpoint has answered."""
    return {
        "part": part,
        "host": host,
        "healthy": healthy,
        "finding": finding,
        "source": source,
        "availability": None,
        "checks": None,
    }


def _rows(record: dict[str, Any], asked: Question) -> list[dict[str, str]]:
    if record["checks"] is None:
        return [{"check": "", "health": "ok" if record["healthy"] else "fail", "text": record["finding"]}]
    return [
        {"check": check["name"], "health": _state(check, asked), "text": check["text"]} for check in record["checks"]
    ]


def _state(check: dict[str, Any], asked: Question) -> str:
    """Return what a check means for what was asked; "warn" is not well, and does not count for it."""
    if check["ok"]:
        return "ok"
    return "fail" if asked.includes(Question(check["counts_for"])) else "warn"
