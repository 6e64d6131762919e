"""`fleet host`: the machines of the fleet."""

import click

from fleet.cli.grammar import Group
from fleet.cli.host import looking, membership, steering


@click.group("host", cls=Group)
def group() -> None:
    """List, show, label, pause, drain, rotate and revoke hosts."""


for _command in (
    looking.list_,
    looking.show,
    membership.label,
    steering.pause,
    steering.resume,
    steering.drain,
    membership.rotate,
    membership.revoke,
):
    group.add_command(_command)
