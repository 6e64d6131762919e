"""`fleet image`: the images of the hosts."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from fleet import shapes
from fleet.cli import attending, invocation, outcomes, pulling, push, render, selection, when
from fleet.cli.grammar import Group
from fleet.cli.sizes import size
from fleet.cli.tables import Column, Record

if TYPE_CHECKING:
    from fleet.client import Outcome

_LISTED = (
    Column(heading="HOST", value=lambda row: row["host"], shrinks=True),
    Column(heading="IMAGE", value=lambda row: ", ".join(row["tags"]) or None, shrinks=True),
    Column(heading="ID", value=lambda row: _short(row["id"])),
    Column(heading="SIZE", value=lambda row: size(row["size_bytes"]), right=True),
    Column(heading="AGE", value=lambda row: when.age(datetime.fromisoformat(row["created"])), right=True),
)


def _message(row: Record) -> str | None:
    return row["error"] and str(row["error"]["message"])


_PULLED = (
    Column(heading="HOST", value=lambda row: row["host"], shrinks=True),
    Column(heading="STATE", value=lambda row: row["state"], state=True),
    Column(heading="IMAGE ID", value=lambda row: _short(row["image_id"])),
    Column(heading="SIZE", value=lambda row: row["size_bytes"] and size(row["size_bytes"]), right=True),
    Column(heading="NEW", value=lambda row: {True: "yes", False: "no"}.get(row["changed"])),
)
_REMOVED = (
    Column(heading="HOST", value=lambda row: row["host"], shrinks=True),
    Column(heading="STATE", value=lambda row: row["state"], state=True),
    Column(heading="NAMES", value=lambda row: ", ".join(row["untagged"]) or None, shrinks=True),
    Column(heading="LAYERS", value=lambda row: len(row["deleted"]), right=True),
)


def _short(image_id: str | None) -> str | None:
    return image_id and image_id.partition(":")[2][:12]


@click.group("image", cls=Group)
def group() -> None:
    """Pull, list and remove images."""


@group.command(
    "pull",
    examples=(
        "fleet image pull nginx:1.27 --host edge-7",
        "fleet image pull registry.example/shop/web:42 -l env=prod",
        "fleet image pull nginx --all --detach",
    ),
)
@click.argument("image")
@selection.options
@click.option("--platform", metavar="OS/ARCH", help="For another kind of machine than the host's, such as linux/arm64.")
@click.option("--detach", is_flag=True, help="Print the ids of the tasks and return.")
@selection.offline_option
@click.pass_context
def pull(
    ctx: click.Context,
    *,
    image: str,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    platform: str | None,
    detach: bool,
    offline: Any,
) -> None:
    """Pull an image, on one host or several, and show how far each is.

    Ctrl-C ends the pulls; what was downloaded whole is kept, and the next pull goes on from there. A host pulls as whom
    it is logged in at the registry (`docker login`, as the user that runs the worker).
    """
    from fleet.client import Fleet
    from fleet.contracts.images import PULL

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    arguments = {"image": image, **({"platform": platform} if platform else {})}
    with Fleet(invocation.current().settings()) as fleet:
        selection.confirm(f"Pull {image} on", fleet.targets(**where), all_hosts=all_hosts)
        if detach:
            batch = fleet.push(PULL, **where, arguments=arguments, offline=offline)
            ctx.exit(push.recorded(fleet, batch, tell=lambda: outcomes.tell_pushed(batch)))
        with attending.pushed(fleet, PULL, where=where, arguments=arguments, offline=offline) as batch:
            with pulling.bars([result.host for result in batch.results]) as show:
                for said in fleet.output(*batch.run_ids):
                    show(said)
            found = attending.ended(batch, bar=False)
        empty: dict[str, Any] = {"id": None, "digest": None, "size_bytes": None, "changed": None}
        rows = [_row(each, empty, image_id="id") for each in found]
        render.listing(rows, columns=_PULLED, key="image_id", empty="nothing was pulled")
        ctx.exit(attending.tell_failures(batch, found))


@group.command("list", examples=("fleet image list --host edge-7", "fleet image list --all -o json"))
@selection.options
@selection.offline_option
@click.pass_context
def list_(
    ctx: click.Context,
    *,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    offline: Any,
) -> None:
    """List the images of hosts, without those that only other images are made of."""
    from fleet.client import Fleet
    from fleet.contracts.images import LIST

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    with Fleet(invocation.current().settings()) as fleet:
        batch = fleet.push(LIST, **where, offline=offline)
        found = attending.ended(batch)
        rows = [{"host": each.host, **row} for each in found if each.reply for row in each.reply["images"]]
        rows.sort(key=lambda row: (row["host"], not row["tags"], row["tags"], row["id"]))
        if rows or not any(each.error for each in found):
            render.listing(rows, columns=_LISTED, key="id", empty="no images")
        ctx.exit(attending.tell_failures(batch, found))


@group.command("rm", examples=("fleet image rm nginx:1.26 --host edge-7", "fleet image rm nginx:1.26 --all -y"))
@click.argument("image")
@selection.options
@click.option("--force", is_flag=True, help="Also where it has several names, or stopped containers use it.")
@selection.offline_option
@click.pass_context
def remove(
    ctx: click.Context,
    *,
    image: str,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    force: bool,
    offline: Any,
) -> None:
    """Remove an image, by its name or id; one that has several names loses this one."""
    from fleet.client import Fleet
    from fleet.contracts.images import REMOVE

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    arguments = {"image": image, "force": force}
    with Fleet(invocation.current().settings()) as fleet:
        selection.confirm(f"Remove {image} from", fleet.targets(**where), all_hosts=all_hosts)
        batch = fleet.push(REMOVE, **where, arguments=arguments, offline=offline)
        found = attending.ended(batch)
        rows = [_row(each, {"untagged": (), "deleted": ()}) for each in found]
        render.listing(rows, columns=_REMOVED, key="host", empty="nothing was removed")
        ctx.exit(attending.tell_failures(batch, found))


def _row(outcome: "Outcome", fields: Mapping[str, Any], **renamed: str) -> dict[str, Any]:
    """Return a run's outcome as a record, with these fields of its reply, or their defaults, beside host and state."""
    shape = shapes.outcome(outcome.run_id, outcome.host, outcome)
    reply = {name: (outcome.reply or {}).get(name, default) for name, default in fields.items()}
    for new, old in renamed.items():
        reply[new] = reply.pop(old)
    return {"task": outcome.run_id, "host": outcome.host, "state": shape["state"], **reply, "error": shape["error"]}
