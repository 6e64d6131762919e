"""`fleet container`: the containers of the hosts."""

import click

from fleet.cli.container import logs, stats
from fleet.cli.grammar import Group


@click.group("container", cls=Group)
def group() -> None:
    """Follow what containers say and use."""


for _command in (logs.command, stats.command):
    group.add_command(_command)
