"""Words: what requests say (for what they push see `pushes`). Unknown fields are refused, every value is bounded."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from fleet import errors, labeling, names
from fleet.contracts import Risk
from fleet.models import RunState
from fleet.security.identity import Level


def _not_ours(value: str) -> str:
    if value in names.RESERVED:
        raise PydanticCustomError("reserved", "is a word of Fleet's own, and no host has it as its name")
    return value


#: No NUL: PostgreSQL has no place for it, and nobody means it.
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]
HostId = Annotated[
    str,
    StringConstraints(pattern=rf"^{names.HOST_ID.pattern}$"),
    AfterValidator(_not_ours),
    Field(json_schema_extra={"not": {"enum": sorted(names.RESERVED)}}),
]
PrincipalName = Annotated[str, StringConstraints(pattern=rf"^{names.PRINCIPAL.pattern}$")]
#: A run's id, or enough of its end to be the only one.
RunId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9:-]{1,100}$")]
PublicId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
LabelKey = Annotated[str, StringConstraints(pattern=rf"^{labeling.LABEL.pattern}$")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({labeling.LABEL.pattern})?$")]
#: What a dict's keys are to match, pydantic describes without saying that there are no others.
CLOSED: dict[str, Any] = {"additionalProperties": False}
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64, json_schema_extra=CLOSED)]
_TEN_YEARS = 3650 * 86_400.0
#: Less than a millisecond is nothing.
SHORTEST = 0.001
Seconds = Annotated[float, Field(ge=SHORTEST, le=_TEN_YEARS, allow_inf_nan=False)]


class Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    #: fields of the request, by what Python calls them where that is something else
    CALLED: ClassVar[Mapping[str, str]] = {}

    @contextmanager
    def named(self) -> Iterator[None]:
        """Have an error about a value name it as the request does, whatever it is called behind it."""
        try:
            yield
        except errors.InvalidValue as exc:
            if exc.field not in self.CALLED:
                raise
            field = self.CALLED[exc.field]
            raise errors.InvalidValue(
                field=field, value=getattr(self, field), problem=self._said(exc.problem), remedy=self._said(exc.remedy)
            ) from exc

    def _said(self, text: str) -> str:
        return re.sub(r"\w+", lambda word: self.CALLED.get(word[0], word[0]), text)


def _such_as(**example: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class Reason(Words):
    model_config = _such_as(reason="no longer needed")

    reason: Text = Field("", description="why, for the record")


class Decision(Reason):
    """An answer about a run that waits for approval."""

    model_config = _such_as(reason="not during office hours")

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="of the request that you were shown: what has another digest is not answered for"
    )


class Approval(Decision):
    model_config = _such_as(reason="ticket 4711", within_seconds=900)

    within_seconds: Seconds = Field(900, description="it must begin within this time")


class Answer(Approval):
    """The same, where one route takes both answers."""

    model_config = _such_as(approve=True, reason="ticket 4711")

    approve: bool = Field(default=True, description="false denies it")


class SetLabels(Words):
    model_config = _such_as(set={"env": "prod"}, remove=["rack"])

    CALLED: ClassVar[Mapping[str, str]] = {"labels": "set"}

    set: Labels = Field({})
    remove: list[LabelKey] = Field([], max_length=64)


class Drain(Words):
    model_config = _such_as(deadline_seconds=600)

    deadline_seconds: Seconds | None = Field(None, description="what still runs then is cancelled")


class NewToken(Words):
    """An enrollment token."""

    model_config = _such_as(ttl_seconds=900, host_id="edge-8", labels={"env": "prod"})

    ttl_seconds: float = Field(900, ge=60, le=30 * 86_400, allow_inf_nan=False)
    uses: int = Field(1, ge=1, le=10_000)
    host_id: HostId | None = Field(None, description="the only host that it enrolls")
    labels: Labels = Field({})


class NewPrincipal(Words):
    model_config = _such_as(id="ci", level="student", selectors={"env": "prod"})

    id: PrincipalName = Field(description="its name")
    level: Level
    selectors: Labels = Field({}, description="labels that a host must have")
    approves: list[Risk] = Field([], max_length=4)
    ttl_seconds: float = Field(365 * 86_400, ge=60, le=_TEN_YEARS, allow_inf_nan=False)


class SetLevel(Words):
    model_config = _such_as(level="supervised", approves=["reads"])

    level: Level
    approves: Annotated[list[Risk], Field(max_length=4)] | None = Field(None, description="as before, where left out")


class Worker(Words):
    model_config = _such_as(host_id="edge-7")

    host_id: HostId | None = Field(None, description="by default the host of this machine")


class Page(Words):
    limit: int = Field(50, ge=1, le=1000)


class RunQuery(Page):
    host: HostId | None = None
    state: RunState | None = None
    task: TaskName | None = None
    batch: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None
    before: RunId | None = Field(None, description="the last run of the page before")


class HostQuery(Page):
    label: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[^\x00=]+=[^\x00]*$", max_length=127)]], Field(max_length=64)
    ] = Field([], description="key=value; only hosts with all of these")
    presence: Literal["online", "stale", "offline", "unlisted"] | None = None
    after: HostId | None = Field(None, description="the last host of the page before")

    @property
    def selector(self) -> dict[str, str]:
        return dict(each.split("=", 1) for each in self.label)


#: The name as its host says; no more of it than an address bears.
_Place = Annotated[str, StringConstraints(pattern=rf"^{names.HOST_ID.pattern}/[^\x00]+$", max_length=1024)]


class ContainerQuery(Page):
    host: HostId | None = None
    running: bool = Field(default=False, description="only those that run")
    managed: bool = Field(default=False, description="only those that Fleet made")
    after: _Place | None = Field(None, description="the last container of the page before, as HOST/NAME")

    @property
    def place(self) -> tuple[str, str] | None:
        if self.after is None:
            return None
        host, _, name = self.after.partition("/")
        return host, name


class ApprovalQuery(Page):
    state: Literal["pending", "approved", "denied", "expired", "cancelled", "refused", "all"] = "pending"
    host: HostId | None = None


class AuditQuery(Page):
    after_id: int | None = Field(None, ge=0, le=2**62, description="those that follow it; the newest where left out")
    host: HostId | None = None
    run: RunId | None = None
    event: Annotated[str, StringConstraints(pattern=r"^[a-z_.]{1,64}$")] | None = None
    actor: Annotated[str, StringConstraints(pattern=r"^[a-z0-9:-]{1,80}$")] | None = None


class TokenQuery(Page):
    before: PublicId | None = Field(None, description="the last token of the page before")


class PrincipalQuery(Page):
    after: PrincipalName | None = Field(None, description="the last principal of the page before")


class SessionQuery(Page):
    host: HostId | None = None
    principal: PrincipalName | None = None


class RunOne(Words):
    wait_seconds: float = Field(0, ge=0, le=60, description="how long the answer may wait for the run's end")
