"""`fleet broker`: what a broker needs to know before Fleet can set up the rest of it."""

from pathlib import Path

import click

from fleet.cli.grammar import Group

#: As long as nobody guesses.
_SHORTEST = 20
_ROLES = click.Choice(["control", "flower", "api", "default"])


@click.group("broker", cls=Group)
def group() -> None:
    """Prepare a broker that is not Fleet's own.

    Fleet makes a user of the broker for each host, principal and token by itself, once its control plane has one there.
    `fleet up` needs none of this.
    """


@group.command(
    "rules",
    examples=(
        "fleet broker rules control --password-file control.password >> users.acl",
        "fleet broker rules flower --password-file flower.password --redis-version 7.0",
    ),
)
@click.argument("role", type=_ROLES)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File that holds the password of the user; only its hash is printed.",
)
@click.option("--redis-version", metavar="X.Y", default="7.2", show_default=True, help="Leave out what is newer.")
def rules(*, role: str, password_file: Path | None, redis_version: str) -> None:
    """Print the user of the control plane, or of Flower, as a line for the broker's ACL file.

    Its words after the name are also what `ACL SETUSER` takes. `default` is the broker's own user, switched off: as
    long as it is on, everybody is let in.
    """
    from fleet import errors
    from fleet.broker import login
    from fleet.security import acl

    if role == "default":
        click.echo(acl.default().line)
        return
    if password_file is None:
        raise click.UsageError(f"{role} needs --password-file")
    password = password_file.read_text(encoding="utf-8").strip()
    if len(password) < _SHORTEST:
        raise errors.InvalidValue(
            field="--password-file",
            value=f"{len(password)} characters",
            problem="is too short: failed logins are not limited",
            remedy="openssl rand -hex 32 makes one",
        )
    make = {"control": acl.control, "flower": acl.flower, "api": acl.api}[role]
    click.echo(make([login.hashed(password)]).known_to(redis_version).line)
