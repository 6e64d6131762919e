"""`fleet key`: the fleet's signing keys."""

import click

from fleet.cli import invocation, render, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column

_COLUMNS = (
    Column(heading="NUMBER", value=lambda row: row["number"], right=True),
    Column(heading="KEY", value=lambda row: row["key"], shrinks=True),
    Column(heading="STATE", value=lambda row: row["state"], state=True),
    Column(heading="CREATED", value=lambda row: when.ago(row["created_at"])),
)


@click.group("key", cls=Group)
def group() -> None:
    """List and change the fleet's signing keys, while everything works.

    The newest key signs credentials and what hosts are told. `rotate` makes the next one, and everybody hears of it,
    signed by the present one; `retire` drops those before it, once every host has been online since.
    """


@group.command("list", examples=("fleet key list",))
def list_() -> None:
    """List the keys, the retired ones too."""
    from fleet import keyring

    with invocation.database(invocation.current().settings()) as session:
        rows = keyring.everything(session)
        live = [row.number for row in rows if row.retired_at is None]
        records = [
            {
                "number": row.number,
                "key": row.public,
                "state": "retired" if row.retired_at else "signs" if row.number == live[-1] else "counts",
                "created_at": row.created_at,
            }
            for row in rows
        ]
    render.listing(records, columns=_COLUMNS, key="key", empty="no keys; the control plane makes the first one")


@group.command("rotate", examples=("fleet key rotate",))
def rotate() -> None:
    """Make the next signing key; the present ones still count."""
    from fleet import keyring, members

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        ring = keyring.rotate(control.session, settings.signing_keys_path, by=settings.resolved_principal)
    with invocation.control_plane(settings) as control:
        members.announce_trust(control.session, control.client, control.ring)
        members.announce_policy(control.session, control.client, control.ring)
    render.say(
        f"key {ring.newest.public} signs from now on; copy {settings.signing_keys_path} to other control workers"
    )
    render.say("`fleet key retire` drops the former one, once every host has been online since")


@group.command("retire", examples=("fleet key retire --yes",))
def retire() -> None:
    """Let all keys but the newest count no more.

    A host that has not been online since the last `rotate` has not heard of the newest key and has to enroll again, and
    a principal that has not pushed since needs a new file. Results from before are not believed any more. So wait a day
    or more after `rotate`, unless the former key was stolen.
    """
    from fleet import clock, keyring, members, principals, vault

    settings = invocation.current().settings()
    with invocation.database(settings) as session:
        left = keyring.unheard(session)
    listed = f" These hosts have not been online since it was made: {', '.join(left[:10])}" if left else ""
    invocation.confirm(f"Let all keys but the newest count no more?{listed}{' …' if len(left) > 10 else ''}")
    with invocation.control_plane(settings) as control:
        # what the former key has signed is signed anew before nobody believes it
        principals.renew(control.session, control.ring, now=clock.now())
        members.renew_hosts(control.session, control.ring)
        vault.seal_anew(control.session, control.ring)
        for host in members.unannounced(control.session):
            members.announce_host(control.session, control.client, control.ring, host)
        members.announce_trust(control.session, control.client, control.ring)
        members.announce_policy(control.session, control.client, control.ring)
    with invocation.control_plane(settings) as control:
        keyring.retire(control.session, settings.signing_keys_path, by=settings.resolved_principal)
    with invocation.control_plane(settings) as control:
        keyring.prune(control.session, settings.signing_keys_path)
        members.announce_trust(control.session, control.client, control.ring)
    render.say("only the newest key counts now")
