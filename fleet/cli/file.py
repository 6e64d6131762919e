"""`fleet file`: single files of the hosts, where the fleet's policy grants them."""

import base64
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet import shapes
from fleet.cli import approving, attending, invocation, outcomes, received, render, selection, steps, when
from fleet.cli.container import pushing
from fleet.cli.grammar import Group
from fleet.cli.push import recorded
from fleet.cli.sizes import size
from fleet.cli.tables import Column

if TYPE_CHECKING:
    from fleet.client import Batch, Outcome
    from fleet.contracts import AnyContract

_STDIN = "-"
_KINDS = {"directory": stat.S_IFDIR, "link": stat.S_IFLNK, "file": stat.S_IFREG}


def _mode(row: Mapping[str, Any]) -> str:
    """Return `drwxr-xr-x`, as `ls -l` shows it; what is of another kind begins with a question mark."""
    return stat.filemode(int(row["mode"] or "0", 8) | _KINDS.get(row["kind"], 0))


_LISTED = (
    Column(heading="HOST", value=lambda row: row["host"], shrinks=True),
    Column(heading="MODE", value=_mode),
    Column(heading="OWNER", value=lambda row: row["owner"]),
    Column(heading="GROUP", value=lambda row: row["group"], from_width=70),
    Column(heading="SIZE", value=lambda row: size(row["size"]), right=True),
    Column(heading="AGE", value=lambda row: when.age(datetime.fromisoformat(row["modified"])), right=True),
    Column(
        heading="NAME",
        value=lambda row: f"{row['name']} → {row['target']}" if row["target"] else row["name"],
        shrinks=True,
    ),
)
_GOT = (
    Column(heading="HOST", value=lambda row: row["host"], shrinks=True),
    Column(heading="STATE", value=lambda row: row["state"], state=True),
    Column(heading="SIZE", value=lambda row: None if row["size"] is None else size(row["size"]), right=True),
    Column(heading="MODE", value=lambda row: row["mode"]),
    Column(heading="OWNER", value=lambda row: row["owner"]),
    Column(heading="FILE", value=lambda row: row["file"], shrinks=True),
)


@click.group("file", cls=Group)
def group() -> None:
    """List, read and write files of hosts, as the fleet's policy grants.

    Only regular files are read and written, and each of these is on record as a shell session. What needs somebody's
    approval waits for it, and says so; `fleet policy explain --file` tells beforehand. Some places no policy grants:
    Fleet's own files, Docker's, and the kernel's.
    """


@group.command("ls", examples=("fleet file ls /etc/nginx --host edge-7", "fleet file ls /srv/app -l env=prod -o json"))
@click.argument("path")
@selection.options
@approving.reason_option
@selection.offline_option
@click.pass_context
def ls(
    ctx: click.Context,
    *,
    path: str,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    reason: str,
    offline: Any,
) -> None:
    """List a directory, with links as they are; the 2,000 first by name, or as many as one reply holds.

    A name that is no UTF-8 is shown with escapes (`\\xff`), and cannot be asked for.
    """
    from fleet.contracts.files import LIST

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    with _asked(LIST, where, {"path": path}, reason=reason, offline=offline) as (batch, found):
        rows = [_entry(each.host, path, row) for each in found if each.reply for row in each.reply["entries"]]
        if rows or not any(each.error for each in found):
            render.listing(rows, columns=_LISTED, key="path", empty="an empty directory")
        for each in found:
            if each.reply and each.reply["truncated"]:
                render.warn(f"{each.host}: there are more than these {len(each.reply['entries']):,}")
        ctx.exit(attending.tell_failures(batch, found))


@group.command(
    "get",
    examples=(
        "fleet file get /etc/nginx/nginx.conf --host edge-7",
        "fleet file get /srv/app/app.log --host edge-7 -O -",
        "fleet file get /etc/hostname --all -O hostnames",
    ),
)
@click.argument("path")
@selection.options
@click.option("-O", "--to", "to", metavar="FILE|DIR|-", help="Where to.  [default: the file's name, in this directory]")
@click.option("-f", "--force", is_flag=True, help="Also over a file that is there.")
@approving.reason_option
@selection.offline_option
@click.pass_context
def get(
    ctx: click.Context,
    *,
    path: str,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    to: str | None,
    force: bool,
    reason: str,
    offline: Any,
) -> None:
    """Read a file of up to 1 MiB into a file of this machine, or to the standard output with `-O -`.

    Unless one --host says where, -O names a directory, which is made, and gets one file for each host. What is there
    already is not overwritten without --force. The new file has the permissions of the one on the host, as far as they
    let its owner write and your umask lets them.
    """
    from fleet.contracts.files import GET

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    place = received.place(path, to, single=len(set(hosts)) == 1, force=force)
    with _asked(GET, where, {"path": path}, reason=reason, offline=offline) as (batch, found):
        rows = []
        for each in found:
            kept = place.keep(each.host, each.reply) if each.reply else None
            rows.append(_got(each, kept))
        if place.path is not None:  # else what was read is the output
            render.listing(rows, columns=_GOT, key="file", empty="nothing was read")
        ctx.exit(attending.tell_failures(batch, found))


@group.command(
    "put",
    examples=(
        "fleet file put nginx.conf /etc/nginx/nginx.conf --host edge-7",
        "fleet file put app.env /srv/app/app.env -l env=prod --mode 0640 --owner app --reason 'new database'",
        "fleet file put - /srv/app/stamp --host edge-7",
    ),
)
@click.argument("source", metavar="FILE|-")
@click.argument("path")
@selection.options
@click.option(
    "--mode", metavar="OCTAL", help="Permissions, such as 0644.  [default: those of the file replaced, or 0644]"
)
@click.option(
    "--owner", help="User of the host, by name or number.  [default: that of the file replaced, or the worker's]"
)
@click.option("--group", help="Group of the host, by name or number.  [default: the same]")
@approving.reason_option
@pushing.options
@click.pass_context
def put(
    ctx: click.Context,
    *,
    source: str,
    path: str,
    hosts: tuple[str, ...],
    selectors: tuple[dict[str, str], ...],
    all_hosts: bool,
    mode: str | None,
    owner: str | None,
    group: str | None,
    reason: str,
    timeout: timedelta | None,
    no_wait: bool,
) -> None:
    """Write a file of up to 128 KiB, whole or not at all; `-` is the standard input.

    What is there is replaced by a new file, and must be a regular one: no link is written through. Its directory has to
    be there.
    """
    from fleet.client import Fleet
    from fleet.contracts.files import PUT

    where = selection.where(hosts, selectors, all_hosts=all_hosts)
    content = _content(source)
    given = {"mode": mode, "owner": owner, "group": group}
    arguments = {"path": path, "content": base64.b64encode(content).decode()}
    arguments |= {name: value for name, value in given.items() if value is not None}
    PUT.parse(arguments)
    with Fleet(invocation.current().settings()) as fleet:
        selection.confirm(f"Write {path} on", fleet.targets(**where), all_hosts=all_hosts)
        with approving.announced(fleet, PUT) as waits:
            batch = fleet.push(PUT, **where, arguments=arguments, description=reason)
            if no_wait:
                ctx.exit(recorded(fleet, batch, tell=lambda: outcomes.tell_pushed(batch)))
            waits.start(batch.run_ids)
            ctx.exit(outcomes.tell_ended(batch, timeout=timeout, brief=_put))


@contextmanager
def _asked(
    contract: "AnyContract", where: Mapping[str, Any], arguments: Mapping[str, Any], *, reason: str, offline: Any
) -> "Iterator[tuple[Batch, Sequence[Outcome]]]":
    """Push something that only looks, and give how it ended everywhere; whoever leaves before ends it there."""
    from fleet.client import Fleet

    contract.parse(arguments)
    with Fleet(invocation.current().settings()) as fleet:
        wishes: dict[str, Any] = {"offline": offline, "description": reason}
        with attending.pushed(fleet, contract, where=where, arguments=arguments, **wishes) as batch:
            found = [received.checked(each, contract) for each in attending.ended(batch)]
        yield batch, found


def _content(source: str) -> bytes:
    """Return what is to be written; no more is read of it than can be."""
    from fleet.contracts.files import LARGEST_PUT

    try:
        if source == _STDIN:
            content, length = sys.stdin.buffer.read(LARGEST_PUT + 1), None
        else:
            with Path(source).open("rb") as file:
                content, length = file.read(LARGEST_PUT + 1), os.fstat(file.fileno()).st_size
    except OSError as exc:
        raise click.UsageError(f"{source}: cannot be read ({exc.strerror})") from exc
    if len(content) > LARGEST_PUT:
        has = f"has {length:,} bytes" if length else "is too large"
        raise click.UsageError(
            f"{source}: it {has}; {LARGEST_PUT:,} are the most that a task can carry. Nothing was pushed"
        )
    return content


def _entry(host: str, path: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"host": host, "path": f"{path.rstrip('/')}/{entry['name']}", **entry}


def _got(outcome: "Outcome", kept: Path | None) -> dict[str, Any]:
    shape = shapes.outcome(outcome.run_id, outcome.host, outcome)
    reply = outcome.reply or {}
    told = {name: reply.get(name) for name in ("size", "mode", "owner", "group", "modified", "sha256")}
    return {
        "task": outcome.run_id,
        "host": outcome.host,
        "state": shape["state"],
        "file": kept and str(kept),
        **told,
        "error": shape["error"],
    }


def _put(reply: Mapping[str, Any]) -> str:
    from fleet.contracts.files import FilePut

    try:
        put = FilePut.model_validate(reply)
    except ValueError:  # a host says what it likes
        return steps.brief(reply)
    what = "replaced" if put.replaced_sha256 else "made"
    if put.replaced_sha256 == put.sha256:
        what = "replaced by the same"
    return f"{what}  {size(put.size)}  {put.mode}  {put.owner}:{put.group}"
