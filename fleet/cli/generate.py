"""`fleet generate`: files that run a host or the control plane on a machine that is yet to be set up."""

from pathlib import Path

import click

from fleet.cli import invocation, render
from fleet.cli.grammar import Command
from fleet.cli.tables import Column

_COLUMNS = (
    Column(heading="FILE", value=lambda file: file["name"]),
    Column(heading="BYTES", value=lambda file: file["bytes"], right=True),
    Column(heading="PATH", value=lambda file: file["path"], shrinks=True),
)


@click.command(
    "generate",
    cls=Command,
    examples=(
        "fleet generate compose --role host --host-id edge-7 --output-dir edge-7",
        "fleet generate systemd requirements --role host --host-id edge-7 --output-dir edge-7",
        "fleet generate all --role control --registry-url rediss://broker.example:6379/0 --output-dir control",
        "fleet generate compose --role host --host-id edge-7 --no-registry --output-dir edge-7",
    ),
)
@click.argument("kinds", nargs=-1, required=True, metavar="dockerfile|compose|systemd|requirements|all...")
@click.option("--role", type=click.Choice(["host", "control"]), required=True, help="What is to run there.")
@click.option("--output-dir", metavar="DIR", required=True, help="Where the files go; made where it is missing.")
@click.option(
    "--registry-url",
    metavar="URL",
    help="Where the registry, and with it the broker, is: rediss://HOST:PORT/0, without a login."
    "  [default: where the token or a file of secrets says]",
)
@click.option("--host-id", metavar="HOST", help="Name of the machine; a host's compose file and unit need it.")
@click.option("--no-registry", is_flag=True, help="Keep the host out of the registry, as `fleet worker --unlisted`.")
@click.option("--own-ca", is_flag=True, help="The broker's certificate is of a CA of your own, in broker_ca.pem.")
@click.option("--executable", metavar="PATH", help="The `fleet` that the unit starts.  [default: this one]")
@click.option("--image", metavar="NAME", help="Name of the image.  [default: fleet-host or fleet-control]")
@click.option("--force", is_flag=True, help="Overwrite files that are there already.")
def command(
    *,
    kinds: tuple[str, ...],
    role: str,
    output_dir: str,
    registry_url: str | None,
    host_id: str | None,
    no_registry: bool,
    own_ca: bool,
    executable: str | None,
    image: str | None,
    force: bool,
) -> None:
    """Write files that run a host or the control plane.

    They are a Dockerfile, a compose file, a systemd unit and requirements, and complete: a compose file comes with
    the Dockerfile that it builds, and that with pinned requirements and the wheel of Fleet itself. They hold no
    secret; each says at its top which files it takes them from. With --no-registry the host writes no heartbeat and
    lists no containers, and nothing about that is in what is written; push to it with --offline queue.
    """
    from fleet import generate

    written = generate.generate(
        kinds,
        role=role,
        output_dir=output_dir,
        registry_url=registry_url,
        host_id=host_id,
        registry=not no_registry,
        executable=executable,
        image=image,
        own_ca=own_ca,
        force=force,
    )
    records = [
        {"name": name, "path": str(Path(path).absolute()), "bytes": path.stat().st_size}
        for name, path in written.items()
    ]
    render.listing(records, columns=_COLUMNS, key="path", empty="nothing to write")
    if no_registry and registry_url:
        render.say(
            "--registry-url is in none of them: without registry, the token or the secrets say where the broker is"
        )
    if invocation.current().format == "table":
        render.say("what to do next stands at the top of each file")
