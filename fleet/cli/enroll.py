"""`fleet enroll`: make this machine a host."""

import click

from fleet.cli import invocation, joining, render
from fleet.cli.grammar import Command
from fleet.cli.types import HOST_ID


@click.command(
    "enroll",
    cls=Command,
    examples=(
        "fleet enroll fleet.0123456789abcdef.SECRET.BROKER --host-id edge-7",
        "fleet enroll --token-file /run/secrets/fleet-token",
    ),
)
@click.argument("token", required=False)
@joining.token_file_option
@click.option("--host-id", type=HOST_ID, help="Name of the host.  [default: FLEET_HOST_ID, then the hostname]")
@click.option("--broker-url", metavar="URL", help="Where this host reaches the broker, if not where the token says.")
@click.option("--force", is_flag=True, help="Enroll again although there is a credential, and replace it.")
def command(
    *, token: str | None, token_file: str | None, host_id: str | None, broker_url: str | None, force: bool
) -> None:
    """Make this machine a host, by a token from `fleet token create`.

    The token says where the broker is, and by whose certificate it is known. What comes back, the credential, is saved
    in the state directory and found by `fleet worker`. A token on the command line can be seen by other users of the
    machine; a file cannot.
    """
    from fleet import errors

    settings = invocation.current().settings(host_id=host_id)
    host = settings.resolved_host_id
    path = settings.credential_path(host)
    if path.exists() and not force:
        raise errors.Refused(f"{host} is enrolled already: {path} exists", remedy="`--force` enrolls it again")
    found = joining.token(settings, given=token, file=token_file)
    if found is None:
        raise click.UsageError("no token; give TOKEN, --token-file or FLEET_TOKEN (`fleet token create` makes one)")
    credential = joining.enroll(settings, host=host, token=found, broker_url=broker_url)
    record = {
        "host": credential.host,
        "credential": str(path),
        "labels": credential.labels,
        "enrolled_at": credential.enrolled_at,
    }
    rows = [("Host", credential.host), ("Credential", path), ("Labels", credential.labels)]
    render.detail(record, key="host", rows=[*rows, ("Next", f"fleet worker --host-id {host}")])
