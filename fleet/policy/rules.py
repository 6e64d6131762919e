"""Rules: decisions by level, risk, labels, principal, task or entry, in place of the level's own."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from fleet import errors, names
from fleet.contracts import Risk
from fleet.contracts.verdicts import Decision
from fleet.policy.document import Section, printable
from fleet.policy.entries import EntryName, Labels
from fleet.policy.question import Question
from fleet.security.identity import Level


def _principal(value: str) -> str:
    if not names.PRINCIPAL.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is no principal's name")
    return value


_Task = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Reason = Annotated[str, StringConstraints(max_length=200), AfterValidator(printable)]


class Rule(Section):
    """A decision for whatever matches all that the rule says; what it does not say matches everything."""

    name: EntryName
    decision: Decision = Field(strict=False)
    levels: tuple[Annotated[Level, Field(strict=False)], ...] | None = Field(None, strict=False, min_length=1)
    risks: tuple[Annotated[Risk, Field(strict=False)], ...] | None = Field(None, strict=False, min_length=1)
    labels: Labels = Field(default_factory=dict)
    principals: tuple[Annotated[str, AfterValidator(_principal)], ...] | None = Field(None, strict=False, min_length=1)
    tasks: tuple[_Task, ...] | None = Field(None, strict=False, min_length=1)
    #: names of entries, of commands or of files
    commands: tuple[EntryName, ...] | None = Field(None, strict=False, min_length=1)
    #: for people
    reason: _Reason = ""

    def matches(self, question: Question, *, risk: Risk, entries: Sequence[str] = ()) -> bool:
        """Say whether the rule is about this; `entries` are the names of those that list it."""
        return (
            (self.levels is None or question.level in self.levels)
            and (self.risks is None or risk in self.risks)
            and self.labels.items() <= question.labels.items()
            and (self.principals is None or question.principal in self.principals)
            and (self.tasks is None or question.contract.name in self.tasks)
            and (self.commands is None or any(each in self.commands for each in entries))
        )

    @property
    def sentence(self) -> str:
        return f'rule "{self.name}"{f": {self.reason}" if self.reason else ""}'


def strictest(
    rules: Sequence[Rule], question: Question, *, risk: Risk, entries: Sequence[str] = ()
) -> tuple[Decision, str] | None:
    """Return the strictest decision of the rules that match, and its sentence; None where none matches."""
    found: Rule | None = None
    for rule in rules:
        if rule.matches(question, risk=risk, entries=entries):
            found = rule if found is None or rule.decision.is_stricter_than(found.decision) else found
    return (found.decision, found.sentence) if found else None


def check_entries(rules: Sequence[Rule], known: Sequence[str]) -> None:
    """Raise ValueError for a rule about an entry that there is not."""
    for rule in rules:
        for name in rule.commands or ():
            if name not in known:
                hint = errors.did_you_mean(name, list(known)) or "no entry has that name"
                raise ValueError(f'rules: rule "{rule.name}" is about {name!r}: {hint}')
