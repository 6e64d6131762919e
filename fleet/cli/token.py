"""`fleet token`: enrollment tokens."""

from datetime import timedelta

import click

from fleet import shapes
from fleet.cli import invocation, render, tables, when
from fleet.cli.grammar import Group
from fleet.cli.tables import Column
from fleet.cli.types import DURATION, HOST_ID, PAIR

_COLUMNS = (
    Column(heading="TOKEN ID", value=lambda token: token["id"]),
    Column(heading="STATE", value=lambda token: token["state"]),
    Column(heading="USES", value=lambda token: token["uses_left"], right=True),
    Column(heading="HOST", value=lambda token: token["host"] or "any", shrinks=True),
    Column(heading="LABELS", value=lambda token: tables.labels(token["labels"]), shrinks=True),
    Column(heading="EXPIRES", value=lambda token: when.ago(token["expires_at"])),
    Column(heading="BY", value=lambda token: token["created_by"], shrinks=True, from_width=100),
)


@click.group("token", cls=Group)
def group() -> None:
    """Make, list and revoke enrollment tokens.

    A token lets one machine (or as many as --uses says) become a host of this fleet. It is shown once, and only a hash
    of it is kept.
    """


@group.command(
    "create",
    examples=(
        "fleet token create",
        "fleet token create --host-id edge-7 --label env=prod --ttl 1h",
        "fleet token create -o id > token.txt",
    ),
)
@click.option("--ttl", type=DURATION, default="15m", show_default=True, help="How long it can be used.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many hosts it enrolls.")
@click.option("--host-id", type=HOST_ID, help="The only host id that it enrolls.")
@click.option("--label", "labels", type=PAIR, multiple=True, help="Label of the hosts it enrolls; may be repeated.")
def create(*, ttl: timedelta, uses: int, host_id: str | None, labels: tuple[tuple[str, str], ...]) -> None:
    """Make an enrollment token and print it."""
    from fleet import enrollment, members

    settings = invocation.current().settings()
    with invocation.control_plane(settings, create=True) as control:
        token = enrollment.create_token(
            control.session,
            ring=control.ring,
            ttl=ttl,
            uses=uses,
            host_id=host_id,
            labels=dict(labels),
            created_by=settings.resolved_principal,
            broker_url=settings.require_broker_url(),
            broker_ca=settings.require_broker().ca,
        )
        token_id = members.admit_token(control.session, control.client, control.ring, token).id
    record = {"token": token, "id": token_id, "expires_in_seconds": int(ttl.total_seconds())}
    if invocation.current().format == "table":
        click.echo(token)
        render.say(f"On the host, within {when.span(ttl)}: fleet enroll TOKEN, then fleet worker")
    else:
        render.detail(record, key="token", rows=())


@group.command("list", examples=("fleet token list", "fleet token list -o json"))
def list_() -> None:
    """List enrollment tokens, the used and the expired ones too."""
    from fleet import enrollment

    with invocation.database(invocation.current().settings()) as session:
        records = [shapes.token(row, state=enrollment.state(row)) for row in enrollment.list_tokens(session)]
    render.listing(records, columns=_COLUMNS, key="id", empty="no tokens; `fleet token create` makes one")


@group.command("revoke", examples=("fleet token revoke 0123456789abcdef",))
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """Revoke a token by its id, so that it enrolls nobody any more."""
    from fleet import members

    settings = invocation.current().settings()
    with invocation.control_plane(settings) as control:
        members.revoke_token(control.session, control.client, token_id, by=settings.resolved_principal)
    render.say(f"token {token_id} is revoked")
