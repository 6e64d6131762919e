"""`fleet health`: alive or not, for a container's HEALTHCHECK and for people."""

from typing import TYPE_CHECKING, Any

import click

from fleet.cli import invocation, render
from fleet.cli.grammar import Command
from fleet.cli.tables import Column
from fleet.cli.types import HOST_ID

if TYPE_CHECKING:
    from fleet.settings import Settings

#: The consumer loop ticks every second or so; silent for three heartbeats it hangs.
_LOOP_HANGS_SECONDS = 30.0
_COLUMNS = (
    Column(heading="PART", value=lambda part: part["part"]),
    Column(heading="HEALTH", value=lambda part: "ok" if part["healthy"] else "fail", state=True),
    Column(heading="FINDING", value=lambda part: part["finding"], wraps=True),
)


@click.command(
    "health", cls=Command, examples=("fleet health", "fleet health worker --ready", "fleet health control -q")
)
@click.argument("part", required=False, type=click.Choice(["worker", "control"]))
@click.option("--host-id", type=HOST_ID, help="Host of the worker.  [default: FLEET_HOST_ID, then the hostname]")
@click.option("--ready", is_flag=True, help="Ask whether the worker can do container work, too.")
@click.pass_context
def command(ctx: click.Context, *, part: str | None, host_id: str | None, ready: bool) -> None:
    """Say whether a worker or the control plane is alive: exit code 0 or 1.

    Without an argument it looks at what belongs to this machine: a worker that has a credential here, and the control
    plane where its database is here.
    """
    settings = invocation.current().settings(host_id=host_id)
    parts = [part] if part else _parts_here(settings)
    records = [_worker(settings, ready=ready) if name == "worker" else _control(settings) for name in parts]
    if not invocation.current().quiet:
        render.listing(records, columns=_COLUMNS, key="part", empty="")
    ctx.exit(0 if all(record["healthy"] for record in records) else 1)


def _parts_here(settings: "Settings") -> list[str]:
    has_worker = settings.credential_path(settings.resolved_host_id).exists()
    has_database = settings.database_url is not None or (settings.state_dir / "fleet.db").exists()
    return [*(["worker"] if has_worker else []), *(["control"] if has_database or not has_worker else [])]


def _worker(settings: "Settings", *, ready: bool) -> dict[str, Any]:
    from fleet import credentials, errors, presence

    host = settings.resolved_host_id
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
    if beat.loop_age_seconds is not None and beat.loop_age_seconds > _LOOP_HANGS_SECONDS:
        finding = f"{host} has a heartbeat, but consumed nothing for {beat.loop_age_seconds:.0f} s"
        return _record("worker", host, healthy=False, finding=finding)
    if ready and (beat.loop_age_seconds is None or not beat.docker_reachable):
        missing = "its Docker Engine does not answer" if beat.loop_age_seconds is not None else "does not consume yet"
        return _record("worker", host, healthy=False, finding=f"{host} is alive, but {missing}")
    return _record("worker", host, healthy=True, finding=f"{host} is alive, {beat.in_hand} tasks in hand")


def _control(settings: "Settings") -> dict[str, Any]:
    from fleet import errors, names

    try:
        with invocation.broker(settings) as client:
            alive = bool(client.exists(names.CONTROL_LEASE))
    except errors.Unreachable as exc:
        return _record("control", None, healthy=False, finding=str(exc))
    finding = "a control worker holds the lease" if alive else "no control worker holds the lease"
    return _record("control", None, healthy=alive, finding=finding)


def _record(part: str, host: str | None, *, healthy: bool, finding: str) -> dict[str, Any]:
    return {"part": part, "host": host, "healthy": healthy, "finding": finding}
