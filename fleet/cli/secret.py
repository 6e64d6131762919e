"""`fleet secret`: what containers get as files, and nobody sees."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fleet import shapes
from fleet.cli import invocation, render, tables, types, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column
from fleet.cli.types import HOST_ID, SELECTOR


def _hosts(row: Mapping[str, Any]) -> str:
    return tables.labels(row["selectors"], none="all")


def _principals(row: Mapping[str, Any]) -> str:
    return ", ".join(row["principals"]) or "all"


_COLUMNS = (
    Column(heading="SECRET", value=lambda row: row["id"]),
    Column(heading="VERSION", value=lambda row: row["version"], right=True),
    Column(heading="BYTES", value=lambda row: row["size"], right=True),
    Column(heading="HOSTS", value=_hosts, shrinks=True),
    Column(heading="PRINCIPALS", value=_principals, shrinks=True),
    Column(heading="CHANGED", value=lambda row: when.ago(row["created_at"])),
    Column(heading="BY", value=lambda row: row["created_by"], shrinks=True, from_width=100),
)


@click.group("secret", cls=Group)
def group() -> None:
    """Keep, list and remove secrets of containers.

    A container gets those that its spec names, as files below /run/secrets. A value is kept sealed by the control
    plane, and goes sealed to the host that makes the container. It is never shown again.
    """


@group.command(
    "create",
    examples=(
        "fleet secret create db-password",
        "fleet secret create tls-key --from-file server.key -l env=prod --principal deploy-bot",
        "fleet secret create db-password --from-file new.txt --replace",
    ),
)
@click.argument("name")
@click.option(
    "--from-file",
    "path",
    type=click.Path(path_type=Path),
    help="Where the value is.  [default: the standard input]",
)
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="Only for hosts with this label.")
@click.option("--principal", "principals", type=HOST_ID, multiple=True, help="Only for containers of this principal.")
@click.option("--for-all", is_flag=True, help="Lift what limits there are: for all hosts and principals.")
@click.option("--replace", is_flag=True, help="Give a secret that is there a new value.")
def create(
    *,
    name: str,
    path: Path | None,
    selectors: tuple[dict[str, str], ...],
    principals: tuple[str, ...],
    for_all: bool,
    replace: bool,
) -> None:
    """Keep a secret. Its value is all bytes of the file, or of the standard input; it is never an argument.

    With --replace it stays for whom it was, unless that is said anew. Containers that are there keep the value that
    they were made with.
    """
    from fleet import vault

    if for_all and (selectors or principals):
        raise click.UsageError("--for-all: takes neither -l nor --principal")

    settings = invocation.current().settings()
    value = _from_file(path) if path else _from_stdin()
    with invocation.control_plane(settings, create=True) as control:
        row = vault.keep(
            control.session,
            name,
            value,
            ring=control.ring,
            by=settings.resolved_principal,
            selectors={} if for_all else types.merge(selectors),
            principals=() if for_all else principals or None,
            replace=replace,
        )
        record = shapes.secret(row)
    rows = [
        ("Secret", name),
        ("Version", record["version"]),
        ("Bytes", record["size"]),
        ("Hosts", _hosts(record)),
        ("Principals", _principals(record)),
    ]
    render.detail(record, key="id", rows=rows)
    if value.endswith(b"\n"):
        render.say("the value ends with a line break, which is part of it (`printf` writes none)")


@group.command("list", examples=("fleet secret list", "fleet secret list -o json"))
def list_() -> None:
    """List secrets, without their values."""
    from fleet import vault

    with invocation.database(invocation.current().settings()) as session:
        records = [shapes.secret(row) for row in vault.everything(session)]
    render.listing(records, columns=_COLUMNS, key="id", empty="no secrets; `fleet secret create` keeps one")


@group.command("rm", examples=("fleet secret rm db-password",))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...]) -> None:
    """Forget secrets; containers that have them keep them."""
    from fleet import vault

    settings = invocation.current().settings()
    with invocation.database(settings, write=True) as session:
        for name in names:
            vault.remove(session, name, by=settings.resolved_principal)
    render.say(f"forgotten: {', '.join(names)}")


def _from_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise click.UsageError(f"--from-file {path}: cannot be read ({exc.strerror})") from exc


def _from_stdin() -> bytes:
    """Read the value; at a terminal, unseen and in one line."""
    if sys.stdin.isatty():
        return str(click.prompt("Value", hide_input=True, err=True)).encode()
    return sys.stdin.buffer.read()
