"""`fleet policy check`, `apply` and `show`: the fleet's policy as a document."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import invocation, render, when
from fleet.cli.grammar import Command

if TYPE_CHECKING:
    from fleet.policy import FleetPolicy, HostPolicy

#: More than any policy may have; what is larger is not read to its end.
_MOST_BYTES = 2 * 1024 * 1024
_PATH = click.Path(path_type=Path, allow_dash=True)


@click.command(
    "check",
    cls=Command,
    examples=("fleet policy check policy.toml", "fleet policy check --host /etc/fleet/policy.toml"),
)
@click.argument("path", type=_PATH, metavar="FILE")
@click.option("--host", "is_host", is_flag=True, help="Read it as the file of a host's owner.")
@click.pass_context
def check(ctx: click.Context, *, path: Path, is_host: bool) -> None:
    """Say whether a policy can be applied, or everything that is wrong with it.

    Entries that are allowed and wider than they look are warned of. Exit code 2 where something is wrong.
    """
    from fleet.policy import fleets, host
    from fleet.policy.remarks import remarks

    text = _read(path)
    wrong = host.problems(text) if is_host else fleets.problems(text)
    record: dict[str, Any] = {"file": str(path), "ok": not wrong, "problems": list(wrong), "warnings": []}
    rows: list[tuple[str, Any]] = [("File", path), ("Result", "wrong" if wrong else "OK")]
    rows += [("Problem", said) for said in wrong]
    if not wrong:
        read = host.parse(text) if is_host else fleets.parse(text)
        counts = _counts(read)
        record |= {"warnings": list(remarks(read)), **counts}
        rows += [(name.capitalize(), count) for name, count in counts.items()]
    render.detail(record, key="file", rows=rows)
    for said in record["warnings"]:
        render.warn(said)
    if wrong:
        ctx.exit(2)


@click.command("apply", cls=Command, examples=("fleet policy apply policy.toml",))
@click.argument("path", type=_PATH, metavar="FILE")
def apply(path: Path) -> None:
    """Let a policy count from now on, on every host, as soon as each has heard of it."""
    from fleet import members, policies, policy
    from fleet.policy.remarks import remarks

    text = _read(path)
    for said in remarks(policy.parse(text, what=f"policy {path}")):
        render.warn(said)
    settings = invocation.current().settings()
    with invocation.control_plane(settings, create=True) as control:
        former = policies.current(control.session)
        version = former.number if former else 0
        made = policies.set_policy(control.session, text, by=settings.resolved_principal)
        number, digest = made.number, policies.digest(text)
    with invocation.control_plane(settings) as control:
        members.announce_policy(control.session, control.client, control.ring)
    state = "applied" if number > version else "in force already"
    record = {"version": number, "digest": digest, "changed": number > version}
    render.detail(record, key="version", rows=[("Version", number), ("State", state), ("Digest", digest)])


@click.command(
    "show", cls=Command, examples=("fleet policy show", "fleet policy show > policy.toml", "fleet policy show -o json")
)
def show() -> None:
    """Print the policy that counts, and tell its version, who set it, and when."""
    from fleet import errors, policies, redaction

    with invocation.database(invocation.current().settings()) as session:
        newest = policies.current(session)
        if newest is None:
            raise errors.NotFound(
                "no policy is set, so every command is denied", remedy="`fleet policy apply FILE` sets one"
            )
        record: dict[str, Any] = {
            "version": newest.number,
            "digest": policies.digest(newest.text),
            "set_by": newest.set_by,
            "set_at": newest.set_at,
            "text": newest.text,
        }
    if invocation.current().format != "table":
        render.detail(record, key="version", rows=())
        return
    render.say(f"version {record['version']}, set by {record['set_by']} {when.ago(record['set_at'])}")
    text: str = record["text"]
    # a file gets it byte for byte, so that it can be applied again; a terminal nothing that could move it
    click.echo(redaction.for_terminal(text, keep_newlines=True) if sys.stdout.isatty() else text, nl=False)


def _read(path: Path) -> str:
    """Return the text of a file, or of the standard input for `-`."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_MOST_BYTES).decode()
        with path.open("rb") as opened:
            return opened.read(_MOST_BYTES).decode()
    except OSError as exc:
        raise click.UsageError(f"{path}: cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise click.UsageError(f"{path}: is not UTF-8 text") from exc


def _counts(read: "FleetPolicy | HostPolicy") -> dict[str, int]:
    return {"commands": len(read.commands or ()), "files": len(read.files or ()), "rules": len(read.rules)}
