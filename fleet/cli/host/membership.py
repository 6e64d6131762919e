"""`fleet host label | rotate | revoke`: who a host is by the fleet's word, and whether it is one."""

import click

from fleet.cli import invocation, render, tables, types
from fleet.cli.grammar import Command
from fleet.cli.types import HOST_ID


@click.command(
    "label", cls=Command, examples=("fleet host label edge-7 env=prod site=basel", "fleet host label edge-7 site-")
)
@click.argument("host_id", type=HOST_ID, metavar="HOST")
@click.argument("words", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
def label(host_id: str, words: tuple[str, ...]) -> None:
    """Set labels of a host (KEY=VALUE), or remove them (KEY-)."""
    from fleet import errors, members

    to_set, to_remove = types.changes(words)
    settings = invocation.current().settings()
    with invocation.database(settings, write=True) as session:
        labels = members.set_labels(
            session, host_id, to_set=to_set, to_remove=to_remove, by=settings.resolved_principal
        )
    try:
        with invocation.control_plane(settings) as control:
            members.announce_host(control.session, control.client, control.ring, host_id)
    except (errors.BrokerUnavailable, errors.SettingsInvalid) as exc:
        render.warn(
            f"the labels are recorded; pushes select by them when the control worker has told the broker: {exc}"
        )
    record = {"id": host_id, "labels": labels}
    render.detail(record, key="id", rows=[("Host", host_id), ("Labels", tables.labels(labels))])


@click.command("rotate", cls=Command, examples=("fleet host rotate edge-7",))
@click.argument("host_id", type=HOST_ID, metavar="HOST")
def rotate(host_id: str) -> None:
    """Have a host change its key and its broker password, while it works.

    The host makes both itself and tells the public key and a hash. What was signed for its former key still counts.
    """
    from fleet import members

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        members.request_key_rotation(
            control.session, control.client, control.ring, host_id, by=settings.resolved_principal
        )
    render.say(f"{host_id} is asked to change its key; `fleet audit list --host {host_id}` shows when it has")


@click.command("revoke", cls=Command, examples=("fleet host revoke edge-7", "fleet host revoke edge-7 --yes"))
@click.argument("host_id", type=HOST_ID, metavar="HOST")
def revoke(host_id: str) -> None:
    """Put a host out of the fleet, within two seconds: its worker ends, and what waits for it is gone.

    Its name can be given to another machine by a new token, and that one inherits nothing.
    """
    from fleet import members

    settings = invocation.current().settings()
    invocation.confirm(f"Put host {host_id} out of the fleet, with all that waits for it?")
    with invocation.control_plane(settings) as control:
        members.revoke_host(control.session, control.client, control.ring, host_id, by=settings.resolved_principal)
    render.say(f"{host_id} is no host of this fleet any more")
