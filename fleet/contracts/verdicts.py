"""Verdicts and sessions as hosts report them: how a governed request was judged, and what came of it.

Told by the host, which judges and carries out; the control plane keeps it as the shell session of the run.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fleet.contracts.contract import Risk

#: Characters of each stream's text that the record keeps, half of them the beginning, half the end.
RECORDED_CHARACTERS = 8 * 1024
#: Characters of the sentence that says which rule decided.
LONGEST_RULE = 500
#: What an integer column of every database holds.
LARGEST_NUMBER = 2**31 - 1


class Decision(StrEnum):
    """What the policy says to one request; each is stricter than those before it."""

    ALLOW = "allow"
    #: only where somebody else approves
    ASK = "ask"
    DENY = "deny"

    def is_stricter_than(self, other: "Decision") -> bool:
        order = list(Decision)
        return order.index(self) > order.index(other)


_Argument = Annotated[str, StringConstraints(max_length=4096)]


class RunAs(BaseModel):
    """What is carried out for a command that was asked for; known secrets are masked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: absolute: of what waits as the policy names it, of what runs where its links lead
    program: str = Field(max_length=4096)
    #: as the program gets them, its own name first; of what runs, granted paths are followed
    argv: tuple[_Argument, ...] = Field((), max_length=256)
    cwd: str = Field(max_length=4096)
    #: names of the variables beside the fixed ones
    env: tuple[_Argument, ...] = Field((), max_length=64)


class Told(BaseModel):
    """How the host judged a request."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    decision: Decision
    #: a word for programs: `allowed`, `needs_approval`, `not_in_allow_list`, `denied`, `no_policy`, `not_permitted`,
    #: `switched_off`; of what was refused before the policy was asked, the reason of that, as `invalid_arguments`
    reason: str = Field(max_length=64)
    #: the rule or entry that decided, for people
    rule: str = Field(max_length=LONGEST_RULE)
    risk: Risk
    #: of the principal, as its credential said it then
    level: str = Field(max_length=16)
    principal: str = Field(max_length=63)
    task: str = Field(max_length=200)
    #: of a command, with known secrets masked; of a file its operation and path
    argv: tuple[_Argument, ...] = Field((), max_length=256)
    cwd: str | None = Field(None, max_length=4096)
    #: of a command that waits for approval
    run_as: RunAs | None = None
    #: version of the fleet's policy; 0 where there is none
    policy: int = Field(0, ge=0, le=LARGEST_NUMBER)


class SessionStarted(BaseModel):
    """What an attempt at a command is about to run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_as: RunAs


class SessionEnded(BaseModel):
    """How an attempt at a governed run ended."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: Literal["exited", "done", "failed", "time_limit", "cancelled", "unknown"]
    #: unix seconds by the broker's clock
    started_at: float = Field(allow_inf_nan=False)
    duration_seconds: float = Field(0.0, ge=0, le=LARGEST_NUMBER)
    exit_code: int | None = Field(None, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)
    #: why it failed, for people
    detail: str = Field("", max_length=1000)
    stdout: str = Field("", max_length=RECORDED_CHARACTERS + 100)
    stderr: str = Field("", max_length=RECORDED_CHARACTERS + 100)
    stdout_bytes: int = Field(0, ge=0, le=2**53 - 1)
    stderr_bytes: int = Field(0, ge=0, le=2**53 - 1)
    #: hexadecimal; of a file its content's
    stdout_sha256: str = Field("", max_length=64)
    stderr_sha256: str = Field("", max_length=64)
    truncated: bool = False
