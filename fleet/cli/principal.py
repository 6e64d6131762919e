"""`fleet principal`: whoever may push."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet import shapes
from fleet.cli import bearer, invocation, render, standing, tables, types, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, HOST_ID, RISKS, SELECTOR

if TYPE_CHECKING:
    from sqlmodel import Session

    from fleet.contracts import Risk
    from fleet.contracts.credentials import PrincipalCredential
    from fleet.settings import Settings

_LEVEL = click.Choice(["student", "intern", "supervised", "autonomous"])
_COLUMNS = (
    Column(heading="PRINCIPAL", value=lambda row: row["id"]),
    Column(heading="LEVEL", value=lambda row: row["level"]),
    Column(heading="STATE", value=lambda row: row["state"], state=True),
    Column(heading="APPROVES", value=lambda row: standing.risks(row["approves"]), shrinks=True),
    Column(heading="HOSTS", value=lambda row: tables.labels(row["selectors"], none="all"), shrinks=True),
    Column(heading="EXPIRES", value=lambda row: when.ago(row["expires_at"])),
    Column(heading="BY", value=lambda row: row["created_by"], shrinks=True, from_width=100),
)


@click.group("principal", cls=Group)
def group() -> None:
    """Make, list, change and revoke those who push: persons and programs, as principals.

    A principal pushes by a file that holds its key. How far it is trusted is its level: students and interns look,
    supervised ones change what can be changed back, autonomous ones do everything. What goes beyond waits for another
    principal that may approve it.
    """


@group.command(
    "create",
    examples=(
        "fleet principal create alice --level autonomous",
        "fleet principal create deploy-bot --level supervised -l env=staging --ttl 30d --file deploy-bot.json",
        "fleet principal create bob --level autonomous --approves reads,changes",
    ),
)
@click.argument("name", type=HOST_ID, metavar="NAME")
@click.option("--level", type=_LEVEL, required=True, help="How far it is trusted.")
@click.option("-l", "--label", "selectors", type=SELECTOR, multiple=True, help="Only hosts with this label.")
@click.option(
    "--approves",
    type=RISKS,
    help="What others do that it may approve: reads,changes,destroys,executes, or all.  [default: none; all for the "
    "first principal of a fleet, where it is autonomous]",
)
@click.option("--ttl", type=DURATION, default="365d", show_default=True, help="How long it may push.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="Where its file goes.  [default: state directory]"
)
def create(
    *,
    name: str,
    level: str,
    selectors: tuple[dict[str, str], ...],
    approves: "tuple[Risk, ...] | None",
    ttl: timedelta,
    path: Path | None,
) -> None:
    """Make a principal, and the file by which it pushes: the only copy of its key."""
    from fleet import principals
    from fleet.security.identity import Level

    settings = invocation.current().settings()
    target = _target(settings, name, path)
    with invocation.control_plane(settings, create=True) as control:
        allowed = _approves_at_first(control.session, level) if approves is None else approves
        made = principals.create(
            control.session,
            ring=control.ring,
            name=name,
            level=Level(level),
            selectors=types.merge(selectors),
            approves=allowed,
            ttl=ttl,
            by=settings.resolved_principal,
            broker_url=settings.require_broker_url(),
            broker_ca=settings.resolved_broker_ca,
        )
        _admit(control, name)
        _write(target, made)
    _announce(settings)
    _show(name, target, level=level, approves=[risk.value for risk in allowed])


@group.command("list", examples=("fleet principal list", "fleet principal list -o json"))
def list_() -> None:
    """List principals, the revoked ones too."""
    from fleet import principals

    with invocation.database(invocation.current().settings()) as session:
        records = [shapes.principal(row) for row in principals.everybody(session)]
    render.listing(records, columns=_COLUMNS, key="id", empty="no principals; `fleet principal create` makes one")


@group.command("show", examples=("fleet principal show deploy-bot", "fleet principal show deploy-bot -o json"))
@click.argument("name", type=HOST_ID, metavar="NAME")
def show(name: str) -> None:
    """Show what a principal may do, and its record: what became of all that it has asked for."""
    from fleet import principals

    with invocation.database(invocation.current().settings()) as session:
        row = principals.get(session, name)
        record = {**shapes.principal(row), "record": standing.record(session, name)}
    rows = [
        ("Principal", record["id"]),
        ("Level", record["level"]),
        ("State", record["state"]),
        ("Approves", standing.risks(record["approves"])),
        ("Hosts", tables.labels(record["selectors"], none="all")),
        ("Expires", when.both(record["expires_at"])),
        ("Created", f"{when.both(record['created_at'])}, by {record['created_by']}"),
    ]
    render.detail(record, key="id", rows=[*rows, *standing.rows(record["record"])])


@group.command(
    "set-level",
    examples=("fleet principal set-level deploy-bot intern", "fleet principal set-level bob autonomous --approves all"),
)
@click.argument("name", type=HOST_ID, metavar="NAME")
@click.argument("level", type=_LEVEL)
@click.option("--approves", type=RISKS, help="What others do that it may approve.  [default: as before]")
def set_level(*, name: str, level: str, approves: "tuple[Risk, ...] | None") -> None:
    """Change how far a principal is trusted; its file stays as it is. Its record is shown beside it.

    A level never rises by itself: this command alone changes it.
    """
    from fleet import principals
    from fleet.security.identity import Level

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        row = principals.set_level(
            control.session,
            name,
            Level(level),
            ring=control.ring,
            by=settings.resolved_principal,
            approves=approves,
        )
        changed, record = shapes.principal(row), standing.record(control.session, name)
    _announce(settings)
    _show_changed({**changed, "record": record}, f"{name} is {level} from now on")


@group.command(
    "set-approves",
    examples=("fleet principal set-approves bob reads,changes", "fleet principal set-approves bob none"),
)
@click.argument("name", type=HOST_ID, metavar="NAME")
@click.argument("risks", type=RISKS, metavar="RISKS|all|none")
def set_approves(*, name: str, risks: "tuple[Risk, ...]") -> None:
    """Change what a principal may approve that others do: reads, changes, destroys, executes, all of it or none."""
    from fleet import principals

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        row = principals.set_approves(control.session, name, risks, ring=control.ring, by=settings.resolved_principal)
        changed, record = shapes.principal(row), standing.record(control.session, name)
    _announce(settings)
    said = f"{name} may approve {standing.risks(changed['approves'])} from now on"
    _show_changed({**changed, "record": record}, said if risks else f"{name} may approve nothing from now on")


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
    from fleet import members

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        members.revoke_principal(control.session, control.client, name, by=settings.resolved_principal)
    _announce(settings)
    render.say(f"{name} is revoked; what it pushed before and no host has taken yet will be refused")


for _command in (bearer.token, bearer.tokens, bearer.revoke_token):
    group.add_command(_command)


def _approves_at_first(session: "Session", level: str) -> "tuple[Risk, ...]":
    """Return what a principal may approve of which nothing is said: the first admin all, so that somebody can."""
    from fleet import principals
    from fleet.contracts import Risk

    return tuple(Risk) if level == "autonomous" and not principals.everybody(session) else ()


def _target(settings: "Settings", name: str, path: Path | None, *, replaces: bool = False) -> Path:
    from fleet import errors

    target = path or settings.state_dir / "principals" / f"{name}.json"
    if target.exists() and not replaces:
        raise errors.Refused(f"{target} exists already", remedy="name another place: --file FILE")
    return target


def _admit(control: invocation.ControlPlane, name: str) -> None:
    from fleet import members

    members.admit_principal(control.session, control.client, name)


def _write(target: Path, made: "PrincipalCredential") -> None:
    from fleet import credentials

    credentials.save_principal(target, made)


def _announce(settings: "Settings") -> None:
    """Tell hosts and callers, once it is committed; a broker that is away hears it from the control worker."""
    from fleet import members

    with invocation.control_plane(settings) as control:
        members.announce_trust(control.session, control.client, control.ring)


def _show(name: str, target: Path, *, level: str | None = None, approves: list[str] | None = None) -> None:
    record: dict[str, Any] = {"id": name, "file": str(target), **({"level": level} if level else {})}
    rows = [("Principal", name), ("File", str(target))]
    if approves is not None:
        record["approves"] = approves
        rows.append(("Approves", standing.risks(approves)))
    render.detail(
        record, key="id", rows=[*rows, ("Next", f"FLEET_PRINCIPAL={name} on this machine; else copy the file")]
    )


def _show_changed(record: dict[str, Any], sentence: str) -> None:
    render.detail(record, key="id", rows=standing.rows(record["record"]))
    render.say(sentence)
