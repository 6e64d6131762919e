"""`fleet policy`: what principals may do, on which hosts, and what somebody else has to approve."""

import click

from fleet.cli.grammar import Group
from fleet.cli.policy import applying, explaining


@click.group("policy", cls=Group)
def group() -> None:
    """Check, apply, show and explain the fleet's policy.

    It lists the commands and files that may be asked for, and says which of what is asked is allowed, denied, or asks
    for somebody else's approval. What it does not list is denied. A host's owner can narrow it by a file of their own.
    """


for _command in (applying.check, applying.apply, applying.show, explaining.explain):
    group.add_command(_command)
