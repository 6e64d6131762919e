"""`fleet principal`: whoever may push."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli import invocation, render, shapes, tables, types, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, HOST_ID, SELECTOR

if TYPE_CHECKING:
    from fleet.contracts.credentials import PrincipalCredential
    from fleet.settings import Settings

_LEVEL = click.Choice(["student", "intern", "supervised", "autonomous"])
_COLUMNS = (
    Column(heading="PRINCIPAL", value=lambda row: row["id"]),
    Column(heading="LEVEL", value=lambda row: row["level"]),
    Column(heading="STATE", value=lambda row: row["state"], state=True),
    Column(heading="HOSTS", value=lambda row: tables.labels(row["selectors"], none="all"), shrinks=True),
    Column(heading="EXPIRES", value=lambda row: when.ago(row["expires_at"])),
    Column(heading="BY", value=lambda row: row["created_by"], shrinks=True, from_width=100),
)


@click.group("principal", cls=Group)
def group() -> None:
    """Make, list, change and revoke those who push: persons and programs, as principals.

    A principal pushes by a file that holds its key. How far it is trusted is its level: students and interns look,
    supervised ones change what can be changed back, autonomous ones do everything.
    """


@group.command(
    "create",
    examples=(
        "fleet principal create alice --level autonomous",
        "fleet principal create deploy-bot --level supervised -l env=staging --ttl 30d --file deploy-bot.json",
    ),
)
@click.argument("name", type=HOST_ID, metavar="NAME")
@click.option("--level", type=_LEVEL, required=True, help="How far it is trusted.")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="Only hosts with this label.")
@click.option("--ttl", type=DURATION, default="365d", show_default=True, help="How long it may push.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="Where its file goes.  [default: state directory]"
)
def create(*, name: str, level: str, selectors: tuple[dict[str, str], ...], ttl: timedelta, path: Path | None) -> None:
    """Make a principal, and the file by which it pushes: the only copy of its key."""
    from fleet import principals
    from fleet.security.identity import Level

    settings = invocation.current().settings()
    target = _target(settings, name, path)
    with invocation.control_plane(settings, create=True) as control:
        made = principals.create(
            control.session,
            ring=control.ring,
            name=name,
            level=Level(level),
            selectors=types.merge(selectors),
            ttl=ttl,
            by=settings.resolved_principal,
            broker_url=settings.require_broker_url(),
            broker_ca=settings.resolved_broker_ca,
        )
        _admit(control, name)
        _write(target, made)
    _announce(settings)
    _show(name, target, level=level)


@group.command("list", examples=("fleet principal list", "fleet principal list -o json"))
def list_() -> None:
    """List principals, the revoked ones too."""
    from fleet import principals

    with invocation.database(invocation.current().settings()) as session:
        records = [shapes.principal(row) for row in principals.everybody(session)]
    render.listing(records, columns=_COLUMNS, key="id", empty="no principals; `fleet principal create` makes one")


@group.command("set-level", examples=("fleet principal set-level deploy-bot intern",))
@click.argument("name", type=HOST_ID, metavar="NAME")
@click.argument("level", type=_LEVEL)
def set_level(name: str, level: str) -> None:
    """Change how far a principal is trusted; its file stays as it is."""
    from fleet import principals
    from fleet.security.identity import Level

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        principals.set_level(control.session, name, Level(level), ring=control.ring, by=settings.resolved_principal)
    _announce(settings)
    render.say(f"{name} is {level} from now on")


@group.command(
    "rotate",
    examples=("fleet principal rotate alice", "fleet principal rotate deploy-bot --overlap 10m --file new.json"),
)
@click.argument("name", type=HOST_ID, metavar="NAME")
@click.option("--overlap", type=DURATION, default="1h", show_default=True, help="How long its former file works.")
@click.option("--ttl", type=DURATION, default="365d", show_default=True, help="How long the new one works.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="Where the new one goes.  [default: state directory]"
)
def rotate(*, name: str, overlap: timedelta, ttl: timedelta, path: Path | None) -> None:
    """Give a principal a new key, in a new file; the former works a while longer."""
    from fleet import principals

    settings = invocation.current().settings()
    target = _target(settings, name, path, replaces=True)
    with invocation.control_plane(settings) as control:
        made = principals.rotate(
            control.session,
            name,
            ring=control.ring,
            by=settings.resolved_principal,
            broker_url=settings.require_broker_url(),
            broker_ca=settings.resolved_broker_ca,
            overlap=overlap,
            ttl=ttl,
        )
        _admit(control, name)
        _write(target, made)
    _announce(settings)
    _show(name, target)


@group.command("revoke", examples=("fleet principal revoke deploy-bot",))
@click.argument("name", type=HOST_ID, metavar="NAME")
def revoke(name: str) -> None:
    """Let a principal push nothing more, from now on and on every host."""
    from fleet import members, principals
    from fleet.broker import login

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        principals.revoke(control.session, name, by=settings.resolved_principal)
        members.expel(control.client, login.principal_user(name))
    _announce(settings)
    render.say(f"{name} is revoked; what it pushed before and no host has taken yet will be refused")


def _target(settings: "Settings", name: str, path: Path | None, *, replaces: bool = False) -> Path:
    from fleet import errors

    target = path or settings.state_dir / "principals" / f"{name}.json"
    if target.exists() and not replaces:
        raise errors.Refused(f"{target} exists already", remedy="name another place: --file FILE")
    return target


def _admit(control: invocation.ControlPlane, name: str) -> None:
    from fleet import members, principals

    members.admit_principal(control.client, principals.get(control.session, name))


def _write(target: Path, made: "PrincipalCredential") -> None:
    from fleet import credentials

    credentials.save_principal(target, made)


def _announce(settings: "Settings") -> None:
    """Tell hosts and callers, once it is committed; a broker that is away hears it from the control worker."""
    from fleet import members

    with invocation.control_plane(settings) as control:
        members.announce_trust(control.session, control.client, control.ring)


def _show(name: str, target: Path, *, level: str | None = None) -> None:
    record = {"id": name, "file": str(target), **({"level": level} if level else {})}
    rows = [("Principal", name), ("File", target)]
    render.detail(
        record, key="id", rows=[*rows, ("Next", f"FLEET_PRINCIPAL={name} on this machine; else copy the file")]
    )
