"""`fleet container`: the containers of the hosts."""

import click

from fleet.cli.container import creating, logs, stats, steering
from fleet.cli.grammar import Group


@click.group("container", cls=Group)
def group() -> None:
    """Make, start, stop, follow and remove containers, on one host or on many.

    What a container may have of a host is that host's policy to grant, whoever asks.
    """


for _command in (
    creating.create,
    steering.start,
    steering.stop,
    steering.restart,
    steering.kill,
    steering.rm,
    steering.inspect,
    steering.wait,
    logs.command,
    stats.command,
):
    group.add_command(_command)
