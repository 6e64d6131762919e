"""The fleet's policy: what its principals may do, on which hosts, and what somebody else has to approve.

One document for all hosts, which the control plane signs (`fleet.policy.statement`). `policy.example.toml` explains
each key.
"""

from typing import Self

from pydantic import Field, model_validator

from fleet.policy import document, rules
from fleet.policy.document import Section
from fleet.policy.entries import Command, Duration, FileGrant
from fleet.policy.rules import Rule

#: Every host reads it whole, and it travels to each of them in one message.
LARGEST_BYTES = 256 * 1024
_REMEDY = "policy.example.toml explains the keys"
_LONGEST_WAIT = 30 * 24 * 3600


class Approvals(Section):
    """How long what waits for approval may wait, and then for its beginning, in seconds."""

    approve_within: Duration = Field(3600.0, le=_LONGEST_WAIT)
    run_within: Duration = Field(900.0, le=_LONGEST_WAIT)

    @property
    def approve_within_seconds(self) -> float:
        return self.approve_within

    @property
    def run_within_seconds(self) -> float:
        return self.run_within


class FleetPolicy(Section):
    """The whole document."""

    approvals: Approvals = Approvals()
    commands: tuple[Command, ...] = Field((), strict=False)
    files: tuple[FileGrant, ...] = Field((), strict=False)
    rules: tuple[Rule, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_names(self.commands, self.files, self.rules)
        rules.check_entries(self.rules, [entry.name for entry in (*self.commands, *self.files)])
        return self


def check_names(commands: tuple[Command, ...], files: tuple[FileGrant, ...], rules: tuple[Rule, ...]) -> None:
    """Raise ValueError where two entries, or two rules, have one name: nobody could tell which of them decided."""
    if name := document.repeated([entry.name for entry in (*commands, *files)]):
        raise ValueError(f"commands, files: two entries have the name {name!r}")
    if name := document.repeated([rule.name for rule in rules]):
        raise ValueError(f"rules: two rules have the name {name!r}")


def parse(text: str, *, what: str = "policy") -> FleetPolicy:
    """Read the fleet's policy; raise `errors.SettingsInvalid` that names every mistake by its place."""
    return document.read(FleetPolicy, text, what=what, remedy=_REMEDY, most_bytes=LARGEST_BYTES)


def problems(text: str) -> tuple[str, ...]:
    """Return every mistake in a policy of a fleet."""
    return document.problems(FleetPolicy, text, most_bytes=LARGEST_BYTES)
