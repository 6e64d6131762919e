"""`fleet host`: the machines of the fleet."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from fleet import names
from fleet.cli import invocation, progress, render, shapes, tables, types, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, HOST_ID, SELECTOR

if TYPE_CHECKING:
    from fleet.models import Host
    from fleet.settings import Settings


def _standing(host: tables.Record) -> str:
    return "revoked" if host["membership"] == "revoked" else str(host["presence"])


def _takes(host: tables.Record) -> str | None:
    return None if host["availability"] == "active" else str(host["availability"])


_COLUMNS = (
    Column(heading="HOST", value=lambda host: host["id"]),
    Column(heading="PRESENCE", value=_standing, state=True),
    Column(heading="WORK", value=_takes, state=True),
    Column(heading="SEEN", value=lambda host: when.ago(host["last_seen_at"])),
    Column(heading="TASKS", value=lambda host: (host["heartbeat"] or {}).get("in_hand"), right=True, from_width=100),
    Column(heading="CPUS", value=lambda host: host["facts"].get("cpus"), right=True),
    Column(heading="MEMORY", value=lambda host: _size(host["facts"].get("memory_bytes")), right=True),
    Column(heading="DOCKER", value=lambda host: host["facts"].get("docker_version"), shrinks=True),
    Column(heading="OS", value=lambda host: host["facts"].get("os"), shrinks=True, from_width=100),
    Column(heading="LABELS", value=lambda host: tables.labels(host["labels"]), shrinks=True),
)


@click.group("host", cls=Group)
def group() -> None:
    """List, show, label, pause and drain hosts."""


@group.command(
    "list", examples=("fleet host list", "fleet host list -l env=prod --presence online", "fleet host list -o json")
)
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="Only hosts with this label.")
@click.option("--presence", type=click.Choice(["online", "stale", "offline"]), help="Only hosts in this presence.")
def list_(*, selectors: tuple[dict[str, str], ...], presence: str | None) -> None:
    """List the hosts: who is enrolled, and who is here now."""
    from fleet import inventory

    settings = invocation.current().settings()
    with invocation.database(settings) as session:
        records = _records(settings, inventory.hosts(session, selector=types.merge(selectors)))
    kept = [record for record in records if presence in (None, record["presence"])]
    empty = "no host matches" if selectors or presence else "no hosts; `fleet token create` lets one enroll"
    render.listing(kept, columns=_COLUMNS, key="id", empty=empty)


@group.command("show", examples=("fleet host show edge-7", "fleet host show edge-7 -o json"))
@click.argument("host_id", type=HOST_ID, metavar="HOST")
def show(host_id: str) -> None:
    """Show all that is known of one host."""
    from fleet import inventory

    settings = invocation.current().settings()
    with invocation.database(settings) as session:
        [record] = _records(settings, [inventory.host(session, host_id)])
    render.detail(record, key="id", rows=_rows(record))


@group.command("label", examples=("fleet host label edge-7 env=prod site=basel", "fleet host label edge-7 site-"))
@click.argument("host_id", type=HOST_ID, metavar="HOST")
@click.argument("words", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
def label(host_id: str, words: tuple[str, ...]) -> None:
    """Set labels of a host (KEY=VALUE), or remove them (KEY-)."""
    from fleet import audit, inventory

    to_set, to_remove = types.changes(words)
    settings = invocation.current().settings()
    with invocation.database(settings, write=True) as session:
        row = inventory.set_labels(session, host_id, to_set, to_remove)
        labels = dict(row.labels)
        changed = {"set": to_set, "removed": sorted(to_remove), "labels": labels}
        actor = names.principal_sender(settings.resolved_principal)
        audit.record(session, event="host.labeled", actor=actor, host_id=host_id, data=changed)
    _publish(settings, host_id)
    record = {"id": host_id, "labels": labels}
    render.detail(record, key="id", rows=[("Host", host_id), ("Labels", tables.labels(labels))])


@group.command("pause", examples=("fleet host pause edge-7", "fleet host pause -l env=lab"))
@click.argument("host_ids", type=HOST_ID, nargs=-1, metavar="HOST...")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="The hosts with all these labels.")
def pause(*, host_ids: tuple[str, ...], selectors: tuple[dict[str, str], ...]) -> None:
    """Have hosts take no new work; their queues wait, and what runs goes on."""
    _set_availability("paused", host_ids, selectors)


@group.command("resume", examples=("fleet host resume edge-7",))
@click.argument("host_ids", type=HOST_ID, nargs=-1, metavar="HOST...")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="The hosts with all these labels.")
def resume(*, host_ids: tuple[str, ...], selectors: tuple[dict[str, str], ...]) -> None:
    """Have hosts take work again."""
    _set_availability("active", host_ids, selectors)


@group.command("drain", examples=("fleet host drain edge-7 --wait", "fleet host drain -l rack=4 --deadline 10m"))
@click.argument("host_ids", type=HOST_ID, nargs=-1, metavar="HOST...")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="The hosts with all these labels.")
@click.option("--deadline", type=DURATION, help="What still runs then is cancelled.  [default: it may finish]")
@click.option("--wait", "waits", is_flag=True, help="Wait until nothing runs there any more.")
@click.option("--timeout", type=DURATION, help="How long to wait.  [default: no limit]")
def drain(
    *,
    host_ids: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    deadline: timedelta | None,
    waits: bool,
    timeout: timedelta | None,
) -> None:
    """Have hosts take no new work, because they are about to be switched off, and let what runs finish."""
    if timeout and not waits:
        raise click.UsageError("--timeout goes with --wait")
    hosts = _set_availability("draining", host_ids, selectors, deadline=deadline)
    if waits:
        _await_idle(hosts, timeout=timeout)


def _set_availability(
    wanted: str,
    host_ids: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    *,
    deadline: timedelta | None = None,
) -> list[str]:
    from fleet import availability, inventory
    from fleet.broker.connection import translated
    from fleet.contracts.hosts import Availability

    if bool(host_ids) == bool(selectors):
        raise click.UsageError("name hosts, or labels with -l: one of the two")
    settings = invocation.current().settings()
    url = settings.require_broker_url()
    with (
        invocation.broker(settings) as client,
        invocation.database(settings, write=True) as session,
        translated(url),
    ):
        chosen = list(host_ids) or [row.id for row in inventory.hosts(session, selector=types.merge(selectors))]
        for host_id in chosen:
            availability.set(
                session,
                client,
                host_id,
                Availability(wanted),
                by=settings.resolved_principal,
                deadline=deadline,
            )
    records = [{"id": host_id, "availability": wanted} for host_id in chosen]
    columns = (
        Column(heading="HOST", value=lambda host: host["id"]),
        Column(heading="AVAILABILITY", value=lambda host: host["availability"], state=True),
    )
    render.listing(records, columns=columns, key="id", empty="no host matches")
    return chosen


def _await_idle(hosts: list[str], *, timeout: timedelta | None) -> None:
    """Wait until these hosts, as their heartbeats say, obey and have nothing in hand."""
    from fleet import errors, presence

    ends = None if timeout is None else time.monotonic() + timeout.total_seconds()
    with invocation.broker(invocation.current().settings()) as client, progress.bar("draining") as advance:
        while True:
            beats = presence.read(client, hosts)
            busy = {
                host: beat.in_hand
                for host, beat in beats.items()
                if beat is not None and (beat.in_hand or beat.availability == "active")
            }
            if not busy:
                return
            if ends is not None and time.monotonic() > ends:
                listed = ", ".join(f"{host} ({count})" for host, count in busy.items())
                raise errors.TimedOut(f"tasks still run on {listed}", remedy="`fleet task list --state running`")
            advance(f"{sum(busy.values())} tasks on {len(busy)} hosts")
            time.sleep(0.5)  # heartbeats come every ten seconds, and at once when a host obeys


def _publish(settings: "Settings", host_id: str) -> None:
    """Write the labels into the registry, by which pushes select; the control plane does so too when it starts."""
    from fleet import errors, inventory

    try:
        with invocation.database(settings) as session, invocation.broker(settings) as client:
            inventory.publish_hosts(session, client, host_id)
    except (errors.BrokerUnavailable, errors.SettingsInvalid) as exc:
        render.warn(
            f"the labels are recorded, but pushes will not select by them before `fleet control` starts anew: {exc}"
        )


def _records(settings: "Settings", rows: "list[Host]") -> list[dict[str, Any]]:
    """Join what the database knows for good with what the registry says now."""
    from fleet import clock, errors, presence

    try:
        with invocation.broker(settings) as client:
            beats = presence.read(client, [row.id for row in rows])
    except (errors.BrokerUnavailable, errors.SettingsInvalid) as exc:
        render.warn(f"presence is unknown: {exc}")
        return [shapes.host(row, presence=None, heartbeat=None) for row in rows]
    now = clock.now()
    return [shapes.host(row, presence=presence.of(row, beats[row.id], now), heartbeat=beats[row.id]) for row in rows]


def _size(count: int | None) -> str | None:
    return f"{count / 2**30:.1f} GiB" if isinstance(count, int) else None


def _rows(host: tables.Record) -> list[tuple[str, Any]]:
    facts, beat = host["facts"], host["heartbeat"] or {}
    address = f"{facts['address']}:{facts.get('port')}" if facts.get("address") else None
    return [
        ("Host", host["id"]),
        ("Presence", host["presence"]),
        ("Membership", host["membership"]),
        ("Availability", host["availability"]),
        ("Labels", tables.labels(host["labels"])),
        ("Enrolled", when.both(host["enrolled_at"])),
        ("Worker started", when.both(host["registered_at"])),
        ("Last seen", when.both(host["last_seen_at"])),
        ("Signed off", when.both(host["signed_off_at"])),
        ("Containers synced", when.both(host["inventory_at"])),
        ("Address", address),
        ("OS", facts.get("os")),
        ("Kernel", " ".join(str(facts[key]) for key in ("kernel", "architecture") if facts.get(key))),
        ("CPUs", facts.get("cpus")),
        ("Memory", _size(facts.get("memory_bytes"))),
        ("Docker", facts.get("docker_version")),
        ("Fleet", facts.get("fleet_version")),
        ("Tasks in hand", beat.get("in_hand")),
        ("Tasks waiting", beat.get("queue_length")),
        ("Recovering", beat.get("recovering")),
        ("Dead letters", beat.get("dead_letters")),
        ("Reports waiting", beat.get("outbox_length")),
        ("Engine answers", {True: "yes", False: "no"}.get(beat.get("docker_reachable"))),  # type: ignore[arg-type]
    ]
