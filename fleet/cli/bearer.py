"""`fleet principal token | tokens | revoke-token`: bearer tokens of the REST API."""

from datetime import timedelta
from pathlib import Path

import click

from fleet import shapes
from fleet.cli import invocation, render, when
from fleet.cli.grammar import Command
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, HOST_ID

_COLUMNS = (
    Column(heading="TOKEN ID", value=lambda token: token["id"]),
    Column(heading="PRINCIPAL", value=lambda token: token["principal"], shrinks=True),
    Column(heading="SCOPE", value=lambda token: token["scope"]),
    Column(heading="STATE", value=lambda token: token["state"], state=True),
    Column(heading="EXPIRES", value=lambda token: when.ago(token["expires_at"])),
    Column(heading="USED", value=lambda token: when.ago(token["used_at"])),
    Column(heading="DESCRIPTION", value=lambda token: token["description"], shrinks=True, from_width=100),
)


@click.command(
    "token",
    cls=Command,
    examples=(
        "fleet principal token",
        "fleet principal token deploy-bot --ttl 90d --description 'CI of the shop'",
        "fleet principal token alice --scope admin -o id > token.txt",
    ),
)
@click.argument("name", type=HOST_ID, metavar="[NAME]", required=False)
@click.option(
    "--scope",
    type=click.Choice(["use", "audit", "admin"]),
    default="use",
    show_default=True,
    help="What it is for: use what the level allows; audit reads all records as well; admin changes who belongs to "
    "the fleet, too.",
)
@click.option("--ttl", type=DURATION, default="30d", show_default=True, help="How long it works.")
@click.option("--description", default="", metavar="TEXT", help="What it is for, for the list.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="The principal's file.  [default: in the state directory]"
)
def token(*, name: str | None, scope: str, ttl: timedelta, description: str, path: Path | None) -> None:
    """Make a bearer token by which a program speaks to the REST API as a principal, and print it.

    It is shown once; only a hash is kept. It needs the principal's file, because it lets do what the file does. NAME is
    by default who you are (FLEET_PRINCIPAL).
    """
    from fleet import bearer, credentials

    settings = invocation.current().settings()
    whose = name or settings.resolved_principal
    held = credentials.load_principal(path or settings.principal_path(whose), name=whose)
    with invocation.database(settings, write=True) as session:
        text = bearer.create(
            session,
            held=held,
            by=settings.resolved_principal,
            scope=bearer.Scope(scope),
            ttl=ttl,
            description=description,
        )
    record = {"token": text, "id": bearer.id_of(text), "principal": held.name, "scope": scope}
    if invocation.current().format == "table":
        click.echo(text)
        render.say(f'As {held.name}: curl -H "Authorization: Bearer TOKEN" http://127.0.0.1:5556/api/hosts')
    else:
        render.detail(record, key="token", rows=())


@click.command("tokens", cls=Command, examples=("fleet principal tokens", "fleet principal tokens deploy-bot -o json"))
@click.argument("name", type=HOST_ID, metavar="[NAME]", required=False)
def tokens(name: str | None) -> None:
    """List bearer tokens of one principal, or of all, the expired and the revoked ones too."""
    from fleet import bearer

    with invocation.database(invocation.current().settings()) as session:
        records = [shapes.bearer_token(row, state=bearer.state(row)) for row in bearer.listing(session, principal=name)]
    render.listing(records, columns=_COLUMNS, key="id", empty="no bearer tokens; `fleet principal token` makes one")


@click.command("revoke-token", cls=Command, examples=("fleet principal revoke-token 0123456789abcdef",))
@click.argument("token_id")
def revoke_token(token_id: str) -> None:
    """Let a bearer token count no more, from the next request on, by its id."""
    from fleet import bearer

    settings = invocation.current().settings()
    with invocation.database(settings, write=True) as session:
        row = bearer.revoke(session, token_id, by=settings.resolved_principal)
    render.say(f"bearer token {row.id} of {row.principal} is revoked")
