"""Pushes: what requests say that have something done on hosts, a task or a command."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from fleet.api.words import CLOSED, SHORTEST, HostId, Labels, Seconds, TaskName, Text, Words
from fleet.contracts.envelope import LONGEST_BACKOFF_SECONDS, LONGEST_LIMIT_SECONDS, LONGEST_WAY_SECONDS

_Delay = Annotated[float, Field(ge=SHORTEST, le=LONGEST_WAY_SECONDS, allow_inf_nan=False)]
_Limit = Annotated[float, Field(ge=SHORTEST, le=LONGEST_LIMIT_SECONDS, allow_inf_nan=False)]
_Backoff = Annotated[float, Field(ge=SHORTEST, le=LONGEST_BACKOFF_SECONDS, allow_inf_nan=False)]


class Options(Words):
    """What may be said of a push beside its task and its host."""

    CALLED: ClassVar[Mapping[str, str]] = {
        "expires": "expires_in_seconds",
        "countdown": "delay_seconds",
        "time_limit": "time_limit_seconds",
        "soft_time_limit": "soft_time_limit_seconds",
        "retry_backoff": "retry_backoff_seconds",
    }

    description: Text = Field("", description="what it is for, for the record")
    metadata: dict[str, Any] = Field({}, description="goes with the task and into its record")
    expires_in_seconds: Seconds | None = Field(None, description="a host must begin within this time, or not at all")
    delay_seconds: _Delay | None = Field(None, description="a host may begin after this time")
    time_limit_seconds: _Limit | None = Field(None, description="ends it after this time")
    soft_time_limit_seconds: _Limit | None = Field(None, description="asks it to stop after this time")
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="tries again where it fails")
    retry_backoff_seconds: _Backoff | None = Field(None, description="waits before the first retry, then twice as long")

    def given(self) -> dict[str, Any]:
        """Return what `Fleet.push` takes of it."""
        return {
            "description": self.description,
            "metadata": self.metadata,
            "max_retries": self.max_retries,
            **{option: _duration(getattr(self, field)) for option, field in self.CALLED.items()},
        }


def _one_of(*alternatives: Mapping[str, Any], **example: Any) -> Callable[[dict[str, Any]], None]:
    """Return what says in a model's description that exactly one of these is given, and none of them by default."""

    def describe(schema: dict[str, Any]) -> None:
        schema["examples"] = [example]
        schema["oneOf"] = list(alternatives)
        for name in {name for each in alternatives for name in each["required"]}:
            schema["properties"][name].pop("default", None)

    return describe


_EITHER_NAME: tuple[Mapping[str, Any], ...] = ({"required": ["agent_id"]}, {"required": ["host_id"]})


class OneHost(Words):
    """A host, by either name of the field."""

    agent_id: HostId = Field("", description="the host's id")
    host_id: HostId = Field("", description="the same, by Fleet's own word")

    @property
    def host(self) -> str:
        return self.host_id or self.agent_id

    @model_validator(mode="after")
    def _name_one(self) -> "OneHost":
        if not self.host:
            raise PydanticCustomError(
                "missing_host", "agent_id (or host_id) is missing: name the host", {"field": "agent_id"}
            )
        if self.agent_id and self.host_id:
            raise PydanticCustomError("two_hosts", "agent_id and host_id: give one of them", {"field": "host_id"})
        return self


class PushTask(Options, OneHost):
    """A task for one host."""

    model_config = ConfigDict(
        json_schema_extra=_one_of(
            *_EITHER_NAME,
            agent_id="edge-7",
            task="fleet.containers.restart",
            arguments={"container": "web"},
            description="memory leak, ticket 4711",
            metadata={"ticket": 4711},
        )
    )

    task: TaskName = Field(description="the contract, such as fleet.host.ping; GET /api/tasks lists them")
    arguments: dict[str, Any] = Field({}, description="as the contract takes them")
    offline: Literal["fail", "queue"] = Field("fail", description="what to do where the host is not connected")


class Push(Options):
    """A task for several hosts: by name, by labels, or all."""

    model_config = ConfigDict(
        json_schema_extra=_one_of(
            {"required": ["hosts"]},
            {"required": ["selector"]},
            {"required": ["all"], "properties": {"all": {"const": True}}},
            task="fleet.containers.restart",
            selector={"env": "prod"},
            arguments={"container": "web"},
            offline="skip",
        )
    )

    task: TaskName
    arguments: dict[str, Any] = Field({})
    hosts: Annotated[list[HostId], Field(min_length=1, max_length=10_000)] = Field([])
    selector: Annotated[Labels, Field(min_length=1)] = Field({})
    all: bool = Field(default=False, description="every host that your selectors name")
    offline: Literal["fail", "skip", "queue"] = "fail"

    @model_validator(mode="after")
    def _name_hosts(self) -> "Push":
        if sum((bool(self.hosts), bool(self.selector), self.all)) != 1:
            said = "name hosts, or a selector, or all: exactly one of the three"
            raise PydanticCustomError("hosts", said, {"field": "hosts"})
        return self

    def where(self) -> dict[str, Any]:
        return {"on": self.hosts or None, "selector": self.selector or None, "all_hosts": self.all}


#: No program can be given a NUL (execve(2)).
_Argument = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
_Program = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
_Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class Execute(OneHost):
    """A command, as an argument list."""

    model_config = ConfigDict(
        json_schema_extra=_one_of(*_EITHER_NAME, agent_id="edge-7", argv=["/usr/bin/uptime"], reason="slow since noon")
    )

    argv: Annotated[
        list[_Argument],
        Field(
            min_length=1,
            max_length=256,
            json_schema_extra={"prefixItems": [TypeAdapter(_Program).json_schema()]},
        ),
    ] = Field(description="the program and its arguments; never a shell")
    cwd: Annotated[str, StringConstraints(max_length=4096, pattern=r"^/[^\x00]*$")] | None = Field(
        None, description="where the policy lists it"
    )
    env: dict[_Variable, _Argument] = Field(
        {}, max_length=64, description="where the policy lists them", json_schema_extra=CLOSED
    )
    reason: Text = Field("", description="what it is for: for the record, and for who approves")
    time_limit_seconds: _Limit | None = Field(None, description="ends it after this time; 60 by default")
    wait_seconds: float = Field(30, ge=0, le=60, description="how long the answer may wait for its end")


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
