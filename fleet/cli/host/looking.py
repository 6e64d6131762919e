"""`fleet host list | show`: which hosts there are, and what is known of each."""

from typing import TYPE_CHECKING, Any

import click

from fleet import shapes
from fleet.cli import invocation, render, tables, types, when
from fleet.cli.grammar import Command
from fleet.cli.tables import Column
from fleet.cli.types import HOST_ID, SELECTOR

if TYPE_CHECKING:
    from fleet.models import Host
    from fleet.settings import Settings


def _standing(host: tables.Record) -> str:
    return "revoked" if host["membership"] == "revoked" else str(host["presence"])


def _takes(host: tables.Record) -> str | None:
    return None if host["availability"] == "active" else str(host["availability"])


_SHELL: dict[bool | None, str] = {True: "by the fleet's policy", False: "switched off by the host's owner"}

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


@click.command(
    "list",
    cls=Command,
    examples=("fleet host list", "fleet host list -l env=prod --presence online", "fleet host list -o json"),
)
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="Only hosts with this label.")
@click.option(
    "--presence", type=click.Choice(["online", "stale", "offline", "unlisted"]), help="Only hosts in this presence."
)
def list_(*, selectors: tuple[dict[str, str], ...], presence: str | None) -> None:
    """List the hosts: who is enrolled, and who is here now."""
    from fleet import inventory

    settings = invocation.current().settings()
    with invocation.database(settings) as session:
        records = _records(settings, inventory.hosts(session, selector=types.merge(selectors)))
    kept = [record for record in records if presence in (None, record["presence"])]
    empty = "no host matches" if selectors or presence else "no hosts; `fleet token create` lets one enroll"
    render.listing(kept, columns=_COLUMNS, key="id", empty=empty)


@click.command("show", cls=Command, examples=("fleet host show edge-7", "fleet host show edge-7 -o json"))
@click.argument("host_id", type=HOST_ID, metavar="HOST")
def show(host_id: str) -> None:
    """Show all that is known of one host."""
    from fleet import inventory

    settings = invocation.current().settings()
    with invocation.database(settings) as session:
        [record] = _records(settings, [inventory.host(session, host_id)])
    render.detail(record, key="id", rows=_rows(record))


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
        *((("Suspect", host["suspect"]),) if host["suspect"] else ()),
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
        ("Commands and files", _SHELL.get(facts.get("shell"))),
        ("Tasks in hand", beat.get("in_hand")),
        ("Tasks waiting", beat.get("queue_length")),
        ("Recovering", beat.get("recovering")),
        ("Dead letters", beat.get("dead_letters")),
        ("Reports waiting", beat.get("outbox_length")),
        ("Engine answers", {True: "yes", False: "no"}.get(beat.get("docker_reachable"))),  # type: ignore[arg-type]
    ]
