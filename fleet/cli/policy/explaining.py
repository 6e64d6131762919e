"""`fleet policy explain`: what the policy says to one request, before anybody makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import invocation, render, tables, types
from fleet.cli.grammar import Command
from fleet.cli.sizes import size
from fleet.cli.types import DURATION, HOST_ID, PAIR

if TYPE_CHECKING:
    from fleet.client import Fleet
    from fleet.contracts import AnyContract, Request
    from fleet.dispatch import Member
    from fleet.policy import FleetPolicy, Stated, Verdict
    from fleet.security.identity import PrincipalIdentity

#: What `fleet` exits with where somebody in charge says no.
_DENIED = 4


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the broker has of those who are asked about; None for what was given by an option, or is not there."""

    principal: "PrincipalIdentity | None" = None
    member: "Member | None" = None
    stated: "Stated | None" = None


@click.command(
    "explain",
    cls=Command,
    examples=(
        "fleet policy explain --as deploy-bot --host edge-7 -- df -h /srv",
        "fleet policy explain --policy new.toml --level student --label env=prod -- uptime",
        "fleet policy explain --as deploy-bot --host edge-7 --file put /srv/app/app.env",
        "fleet policy explain --as deploy-bot --host edge-7 --task fleet.containers.remove",
    ),
)
@click.argument("argv", nargs=-1, metavar="[-- PROGRAM [ARGUMENT]...]")
@click.option("--as", "principal", type=HOST_ID, metavar="PRINCIPAL", help="Who asks.  [default: you]")
@click.option("--level", type=click.Choice(["student", "intern", "supervised", "autonomous"]), help="As if trusted so.")
@click.option("--host", type=HOST_ID, help="On this host.")
@click.option("--label", "labels", type=PAIR, multiple=True, help="On a host with this label, instead of --host.")
@click.option("--policy", "path", type=click.Path(path_type=Path), help="By this file, which need not be applied.")
@click.option("--limit", type=DURATION, help="With this time limit.  [default: 60s]")
@click.option("--cwd", help="In this directory.")
@click.option("--env", "variables", type=PAIR, multiple=True, help="With this variable.")
@click.option(
    "--file",
    "file",
    type=(click.Choice(["ls", "get", "put"]), str),
    metavar="ls|get|put PATH",
    help="Explain that operation on a file of the host, instead of a command.",
)
@click.option("--task", help="Explain a task of that name instead of a command.")
@click.pass_context
def explain(
    ctx: click.Context,
    *,
    argv: tuple[str, ...],
    principal: str | None,
    level: str | None,
    host: str | None,
    labels: tuple[tuple[str, str], ...],
    path: Path | None,
    limit: timedelta | None,
    cwd: str | None,
    variables: tuple[tuple[str, str], ...],
    file: tuple[str, str] | None,
    task: str | None,
) -> None:
    """Say what the fleet's policy says to a request: allow, ask or deny, and by which rule.

    What is in force is asked of the broker; with --policy, --level and --label nothing is. A host's owner may narrow
    all of it by a file of their own. Of a file the path is judged as it is written; where its links lead, and how large
    it is, only the host can see. Exit code 0 for allow and for ask, 4 for deny.
    """
    from fleet import policy
    from fleet.policy import HostPolicy, Question
    from fleet.security.identity import Level

    if host and labels:
        raise click.UsageError("--host and --label: name a host, or the labels of one")
    settings = invocation.current().settings()
    asks = principal or settings.resolved_principal
    contract, request = _asked(argv, cwd=cwd, variables=variables, file=file, task=task, limit=limit)
    tried = _tried(path)
    known = _known(settings, asks=None if level else asks, host=host, wants_policy=tried is None)
    trusted = Level(level) if level else known.principal.level if known.principal else Level.STUDENT
    where = known.member.labels if known.member else types.unique(labels, option="--label")
    question = Question(
        principal=asks,
        level=trusted,
        labels=where,
        contract=contract,
        request=request,
        limit_seconds=limit.total_seconds() if limit else None,
    )
    counts = tried or (known.stated.policy if known.stated else None)
    verdict = _addressed(known, policy.decide(question, fleet=counts, host=HostPolicy()))
    version = None if tried else known.stated.version if known.stated else 0
    most_bytes = _most_bytes(verdict, contract)
    _show(verdict, most_bytes=most_bytes, asks=asks, level=trusted.value, host=host, labels=where, version=version)
    if verdict.decision == "deny":
        ctx.exit(_DENIED)
    render.say("the host's own file may narrow this further")


def policy_of(fleet: "Fleet") -> "Stated | None":
    """Return the policy that the broker has, by the word of a key that this principal trusts; None where none is set.

    Raises `errors.NotTrusted`, and `errors.SettingsInvalid` for one of a newer version of Fleet.
    """
    from fleet import names, policy
    from fleet.broker.connection import translated

    with translated(fleet.dispatcher.broker):
        said: Any = fleet.dispatcher.redis.get(names.POLICY)
    return policy.read(said, fleet.dispatcher.signer.trust.keys) if said else None


def _asked(
    argv: Sequence[str],
    *,
    cwd: str | None,
    variables: Sequence[tuple[str, str]],
    file: tuple[str, str] | None,
    task: str | None,
    limit: timedelta | None,
) -> "tuple[AnyContract, Request]":
    """Return the contract and the request that the options mean."""
    from fleet.contracts import Request, files, registry, shell

    if file and task is not None:
        raise click.UsageError("--file and --task: explain the one or the other")
    if (file or task is not None) and (argv or cwd is not None or variables or limit is not None):
        option = "--file" if file else "--task"
        raise click.UsageError(f"{option}: takes neither a command nor --cwd, --env and --limit")
    if file:
        operation, path = file
        if operation == "put":  # a file without content is the least that can be asked for
            return files.PUT, files.PUT.parse({"path": path, "content": ""})
        contract: AnyContract = files.GET if operation == "get" else files.LIST
        return contract, contract.parse({"path": path})
    if task is None:
        if not argv:
            raise click.UsageError("no command; write it after --, such as -- df -h")
        arguments: dict[str, Any] = {"argv": list(argv), "env": types.unique(variables, option="--env")}
        return shell.RUN, shell.RUN.parse(arguments if cwd is None else {**arguments, "cwd": cwd})
    contract = registry.get(task)
    if contract.governed:
        way = "write the command after --" if contract is shell.RUN else "name it and the path with --file"
        raise click.UsageError(f"--task: what {task} is asked for decides; {way}")
    return contract, Request()


def _tried(path: Path | None) -> "FleetPolicy | None":
    """Return the policy of a file that somebody wants to try."""
    from fleet import policy

    if path is None:
        return None
    try:
        return policy.parse(path.read_text(encoding="utf-8"), what=f"policy {path}")
    except OSError as exc:
        raise click.UsageError(f"--policy {path}: cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise click.UsageError(f"--policy {path}: is not UTF-8 text") from exc


def _known(settings: Any, *, asks: str | None, host: str | None, wants_policy: bool) -> _Known:
    """Ask the broker for what no option has said."""
    from fleet.client import Fleet

    if asks is None and host is None and not wants_policy:
        return _Known()
    with Fleet(settings) as fleet:
        members = fleet.dispatcher.members()  # with it comes whom to trust now
        return _Known(
            principal=_principal(fleet, asks) if asks else None,
            member=_member(members, host) if host else None,
            stated=policy_of(fleet) if wants_policy else None,
        )


def _principal(fleet: "Fleet", name: str) -> "PrincipalIdentity":
    from fleet import errors, names
    from fleet.broker.connection import translated

    with translated(fleet.dispatcher.broker):
        credential: Any = fleet.dispatcher.redis.hget(names.PRINCIPALS, name)
    if credential is None:
        raise errors.NotFound(f"no principal named {name!r}", remedy="`fleet principal list` shows those there are")
    return fleet.dispatcher.signer.trust.principal(credential)


def _member(members: "Mapping[str, Member]", host: str) -> "Member":
    from fleet import errors

    if host not in members:
        remedy = errors.did_you_mean(host, list(members)) or "`fleet host list` shows those that are"
        raise errors.NotFound(f"no host named {host!r} is enrolled", remedy=remedy)
    return members[host]


def _addressed(known: _Known, verdict: "Verdict") -> "Verdict":
    """Return the verdict of a host that looks first whether the principal may push to it at all."""
    from fleet.contracts.verdicts import Decision

    if known.principal is None or known.member is None or known.principal.may_address(known.member.identity):
        return verdict
    rule = f"principal {known.principal.name} may push to hosts with {tables.labels(known.principal.selectors)} only"
    return replace(verdict, decision=Decision.DENY, reason="not_permitted", rule=rule, command=None, file=None)


def _most_bytes(verdict: "Verdict", contract: "AnyContract") -> int | None:
    """Return how large a file may be that is read or written; None for what reads and writes none."""
    from fleet.contracts import files

    carried = {files.GET.name: files.LARGEST_GET, files.PUT.name: files.LARGEST_PUT}
    if verdict.file is None or contract.name not in carried:
        return None
    return min(verdict.file.most_bytes, carried[contract.name])


def _show(
    verdict: "Verdict",
    *,
    most_bytes: int | None,
    asks: str,
    level: str,
    host: str | None,
    labels: Mapping[str, str],
    version: int | None,
) -> None:
    record = {
        "decision": verdict.decision.value,
        "reason": verdict.reason,
        "rule": verdict.rule,
        "risk": verdict.risk.value,
        "command": verdict.command.name if verdict.command else None,
        "file": verdict.file.name if verdict.file else None,
        "most_bytes": most_bytes,
        "principal": asks,
        "level": level,
        "host": host,
        "labels": dict(labels),
        "policy": version,
    }
    rows = [
        ("Decision", verdict.decision.value),
        ("Reason", verdict.reason),
        ("Rule", verdict.rule),
        ("Risk", verdict.risk.value),
        *([("At most", size(most_bytes))] if most_bytes is not None else []),
        ("Principal", f"{asks} ({level})"),
        ("Host", f"{host or 'any'} ({tables.labels(labels, none='no labels')})"),
        ("Policy", "the file" if version is None else f"version {version}" if version else "none is set"),
    ]
    render.detail(record, key="decision", rows=rows)
