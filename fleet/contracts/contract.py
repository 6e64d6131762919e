"""A contract: one declared kind of request that may be pushed to a host.

Senders send by contract, hosts carry out by contract; both check the same models. Requests refuse unknown fields, so
a misspelt argument is an error where it was written. Replies and reports ignore them, because old and new versions
meet there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fleet import errors

#: Replies travel through the broker and into the ledger.
USUAL_REPLY_BYTES = 256 * 1024


class Risk(StrEnum):
    """What carrying out a contract can do to the host."""

    #: looks, and changes nothing
    READS = "reads"
    #: changes something that can be changed back
    CHANGES = "changes"
    #: removes something for good
    DESTROYS = "destroys"
    #: runs a program of the caller's choice
    EXECUTES = "executes"


class Restart(StrEnum):
    """What the next worker session does about a run of this contract that was begun and has no known end.

    A contract with `perform` runs under a supervisor that outlives the worker: its word comes first, and this is for
    runs of which it has none (the machine went down, or somebody killed it too).
    """

    #: run it again, as the next attempt; three times at most
    RERUN = "rerun"
    #: compare with what the Engine shows: it had its effect (and succeeds), or it runs again
    RECONCILE = "reconcile"
    #: it ends as failed (`interrupted`): it changes nothing, and whoever still wants to know asks again
    FAIL = "fail"
    #: give it back to the control plane, which queues it anew
    HAND_BACK = "hand_back"
    #: it may have had its effect: it ends as `unknown`, and somebody has to look
    UNKNOWN = "unknown"


class Request(BaseModel):
    """Arguments of a contract: frozen, unknown fields refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_max_length=65_536, allow_inf_nan=False)

    @classmethod
    def about_unknown(cls, name: str, _value: Any) -> str:
        """Say in a few words how to go on, to somebody who gave a field that there is not; empty for no idea."""
        letters = {field.replace("_", ""): field for field in cls.model_fields}
        same = letters.get(name.lower().replace("_", "").replace("-", ""))
        return errors.did_you_mean(same or name, list(cls.model_fields))


class Reply(BaseModel):
    """What a host answers: frozen, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RunContext(Protocol):
    """What the function that carries out a contract is told about its run."""

    run_id: str
    host: str
    attempt: int
    description: str
    metadata: Mapping[str, Any]
    submitted_by: str

    @property
    def docker(self) -> Any:
        """A `docker.DockerClient` of this host, with time-outs set; raises `errors.EngineUnavailable`."""

    def progress(self, step: str, percent: float | None = None) -> None:
        """Tell watchers how far the run is; sent at most once a second, the latest wins."""


RequestT = TypeVar("RequestT", bound=Request)
ReplyT = TypeVar("ReplyT", bound=Reply)


@dataclass(frozen=True, kw_only=True)
class Contract(Generic[RequestT, ReplyT]):
    """A task name with what goes in, what comes out, what it may do, and whether it may be done twice.

    `on_restart` is derived from `idempotent` unless it is given. `limit` is how long one attempt may take where a push
    says nothing. `perform` is where a package's own function lies (`"package.module:function"`, called with the request
    and a `RunContext`, returning the reply); it is imported on hosts only, in a process of its own. Fleet's own
    contracts leave it empty: theirs lie in `workers/`.

    A run of an `attached` contract of Fleet's own lasts for as long as somebody wants to see it, or something far away
    takes: it gets a thread beside the pool, and ends at once when it is cancelled or the worker stops.

    `largest_reply` bounds the reply as JSON, in bytes; packages have no more than the usual.

    What a `governed` contract is asked for must be listed in the fleet's policy, whoever asks; the risk of the entry
    counts, and the one here only where none is found. Every request is on record as a shell session.
    """

    name: str
    summary: str
    request: type[RequestT]
    reply: type[ReplyT]
    risk: Risk
    idempotent: bool
    on_restart: Restart | None = None
    limit: timedelta = timedelta(hours=1)
    perform: str = ""
    attached: bool = False
    governed: bool = False
    largest_reply: int = USUAL_REPLY_BYTES

    @property
    def restart(self) -> Restart:
        """What a restart of the worker does with a run that had begun."""
        return self.on_restart or (Restart.RERUN if self.idempotent else Restart.UNKNOWN)

    def parse(self, arguments: Mapping[str, Any]) -> RequestT:
        """Check arguments and return the request.

        Raises `errors.InvalidArguments` that names every wrong field and lists those the contract takes.
        """
        try:
            return self.request.model_validate(arguments)
        except ValidationError as exc:
            fields = {".".join(map(str, e["loc"])) or "arguments": self._explain(e) for e in exc.errors()}
            raise errors.InvalidArguments(self.name, fields, expected=self.signature()) from exc

    def _explain(self, error: ErrorDetails) -> str:
        """Say in a few words what is wrong with a field."""
        if error["type"] == "missing":
            return "is missing"
        if error["type"] == "extra_forbidden":
            *path, name = error["loc"]
            hint = _model_at(self.request, path).about_unknown(str(name), error["input"])
            return f"there is no such field{f', {hint}' if hint else ''}"
        return error["msg"].removeprefix("Value error, ")

    def signature(self) -> str:
        """Return the fields in one line: `container: str, timeout_seconds: int = 10`."""
        parts = []
        for name, field in self.request.model_fields.items():
            default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
            parts.append(f"{name}: {_kind(field.annotation)}{default}")
        return ", ".join(parts) or "no arguments"


def _kind(annotation: Any) -> str:
    """Return a type as people write it: without its constraints, which an error names when one is broken."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin in {Union, UnionType}:
        return " | ".join("None" if part is type(None) else _kind(part) for part in parts)
    if origin is Literal:
        return " | ".join(map(repr, parts))
    if origin is not None:
        inner = ", ".join("..." if part is Ellipsis else _kind(part) for part in parts)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _model_at(model: type[Request], path: Sequence[int | str]) -> type[Request]:
    """Return the model of what lies at a path in a request, or the last one on the way there."""
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return model


def _model_in(annotation: Any) -> type[Request] | None:
    """Return the model that a field's annotation is about: `Model`, `Model | None`, `tuple[Model, ...]`."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation if issubclass(annotation, Request) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


#: A function that carries out a contract.
Performer = Callable[[Any, RunContext], Reply]
AnyContract = Contract[Any, Any]
