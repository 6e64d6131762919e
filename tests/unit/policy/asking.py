"""Questions that tests of the policy put to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fleet import policy
from fleet.contracts import AnyContract, Request, files, registry, shell
from fleet.policy import FleetPolicy, HostPolicy, Question, Verdict
from fleet.security.identity import Level

NOTHING_NARROWED = HostPolicy()


def fleets(**sections: Any) -> FleetPolicy:
    """Return a policy of a fleet, in the words of its TOML."""
    return FleetPolicy.model_validate(sections)


def hosts(**sections: Any) -> HostPolicy:
    """Return the file of a host's owner."""
    return HostPolicy.model_validate(sections)


def command(*argv: Any, name: str = "it", risk: str = "reads", **more: Any) -> dict[str, Any]:
    """Return an entry of commands."""
    return {"name": name, "risk": risk, "argv": list(argv), **more}


def files_below(root: str, *may: str, name: str = "files", **more: Any) -> dict[str, Any]:
    """Return an entry of files."""
    return {"name": name, "root": root, "may": list(may or ("list", "get", "put")), **more}


def rule(decision: str, *, name: str = "the rule", **more: Any) -> dict[str, Any]:
    return {"name": name, "decision": decision, **more}


def question(
    contract: AnyContract,
    request: Request,
    *,
    level: Level | str = Level.AUTONOMOUS,
    principal: str = "bob",
    labels: Mapping[str, str] | None = None,
    limit: float | None = None,
) -> Question:
    return Question(
        principal=principal,
        level=Level(level),
        labels=labels or {},
        contract=contract,
        request=request,
        limit_seconds=limit,
    )


def run(
    argv: Sequence[str],
    fleet: FleetPolicy | None,
    *,
    host: HostPolicy = NOTHING_NARROWED,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    **who: Any,
) -> Verdict:
    """Ask for a command."""
    # what the contract would refuse the policy has to refuse as well
    request = shell.RunCommand.model_construct(argv=tuple(argv), cwd=cwd, env=dict(env or {}))
    return policy.decide(question(shell.RUN, request, **who), fleet=fleet, host=host)


def touch(
    operation: str, path: str, fleet: FleetPolicy | None, *, host: HostPolicy = NOTHING_NARROWED, **who: Any
) -> Verdict:
    """Ask for a file; `content` is what is put, in base64."""
    content = who.pop("content", "")
    contract, request = {
        "list": (files.LIST, files.ListFiles.model_construct(path=path)),
        "get": (files.GET, files.GetFile.model_construct(path=path)),
        "put": (files.PUT, files.PutFile.model_construct(path=path, content=content)),
    }[operation]
    return policy.decide(question(contract, request, **who), fleet=fleet, host=host)


def task(name: str, fleet: FleetPolicy | None, *, host: HostPolicy = NOTHING_NARROWED, **who: Any) -> Verdict:
    """Ask for a task that is not governed."""
    return policy.decide(question(registry.get(name), Request(), **who), fleet=fleet, host=host)
