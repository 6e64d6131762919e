"""Listing: which entries are about a request, what each of them decides, and which of them grants it.

An entry is about what its arguments (its directory and operations, for files) and its labels say. Directory, variables
and time are what it grants beside that: who asks for more than one entry grants does not get out of what it decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleet.contracts import Request, Risk
from fleet.contracts.files import GetFile, ListFiles, PutFile
from fleet.contracts.shell import RunCommand
from fleet.contracts.verdicts import Decision
from fleet.policy import levels
from fleet.policy.entries import Command, FileGrant, risk_of
from fleet.policy.question import Question
from fleet.policy.rules import Rule, strictest

_RISKS = tuple(Risk)
AnyEntry = Command | FileGrant


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An entry that is about the request, and what is decided by it."""

    entry: AnyEntry
    risk: Risk
    decision: Decision
    why: str
    #: what is asked for and not granted, as a sentence; empty where it grants all
    lacks: str = ""

    @property
    def sentence(self) -> str:
        return f'{self.entry.kind} "{self.entry.name}" ({self.risk}): {self.why}'


@dataclass(frozen=True, kw_only=True)
class Listed:
    """All entries of one policy that are about a request."""

    candidates: tuple[Candidate, ...]
    #: why nothing grants it, where nothing does
    near: str

    @property
    def strictest(self) -> Candidate | None:
        """The first of the strictest decision, whether or not it grants all that is asked for."""
        return _strictest(self.candidates)

    @property
    def granting(self) -> Candidate | None:
        """Whose grant counts: of those that grant all that is asked for, the first of the strictest decision."""
        return _strictest([each for each in self.candidates if not each.lacks])

    @property
    def names(self) -> frozenset[str]:
        """Of all of them."""
        return frozenset(each.entry.name for each in self.candidates)

    @property
    def risk(self) -> Risk:
        """The gravest that any of them says."""
        return max((each.risk for each in self.candidates), key=_RISKS.index)


def listed(
    question: Question, entries: Sequence[AnyEntry], rules: Sequence[Rule], *, beside: Listed | None = None
) -> Listed:
    """Return the entries that are about the request.

    `beside` are those of the fleet's policy, where those of a host's file are looked through: rules about each of them
    count, the graver of two risks does, and a command has to have a place to run in that both grant.
    """
    near = _nothing_near(question.request, entries)
    candidates: list[Candidate] = []
    for entry, lacks in _about(question, entries):
        if not entry.holds_on(question.labels):
            near = f'{entry.kind} "{entry.name}" lists this, but not for this host (labels)'
            continue
        missing = lacks or (_is_elsewhere(question, entry, beside) if beside else "")
        near = f'{entry.kind} "{entry.name}" lists this, but not {missing}' if missing else near
        others: tuple[Candidate | None, ...] = beside.candidates if beside else (None,)
        candidates += (_candidate(question, entry, rules, other, near if missing else "") for other in others)
    return Listed(candidates=tuple(candidates), near=near)


def _about(question: Question, entries: Sequence[AnyEntry]) -> Iterator[tuple[AnyEntry, str]]:
    """Return the entries that list what is asked for, wherever they hold, and what each does not grant of it."""
    request = question.request
    for entry in entries:
        match entry, request:
            case Command(), RunCommand() if entry.lists(request.argv):
                yield entry, entry.lacks(request, limit_seconds=question.limit_seconds)
            case FileGrant(), ListFiles() | GetFile() | PutFile() if entry.lists(request):
                yield entry, entry.lacks(request)


def _is_elsewhere(question: Question, entry: AnyEntry, beside: Listed) -> str:
    """Return why a command has no place to run in, of which nobody has asked for one: moved to "/", its words would
    mean other files. Empty where it has one."""
    granted = beside.granting.entry if beside.granting else None
    if not (isinstance(question.request, RunCommand) and isinstance(entry, Command) and isinstance(granted, Command)):
        return ""
    if question.request.cwd is not None or granted.shares_directory(entry):
        return ""
    return f'in a directory that command "{granted.name}" is run in'


def _nothing_near(request: Request, entries: Sequence[AnyEntry]) -> str:
    if not isinstance(request, RunCommand):
        return "no entry of files lists that"
    about = (entry for entry in entries if isinstance(entry, Command) and entry.is_about(request.argv))
    if near := next(about, None):
        return f'command "{near.name}" lists this program, but not with these arguments'
    program = next(iter(request.argv), "")
    return f"no entry lists the program {program if len(program) <= 80 else f'{program[:77]}...'!r}"


def _candidate(
    question: Question, entry: AnyEntry, rules: Sequence[Rule], beside: Candidate | None, lacks: str
) -> Candidate:
    risk = entry.risk if isinstance(entry, Command) else _risk(question)
    named = [entry.name]
    if beside is not None:
        risk = max(risk, beside.risk, key=_RISKS.index)
        named.append(beside.entry.name)
    decided = strictest(rules, question, risk=risk, entries=named)
    if entry.decision is not None and (decided is None or not decided[0].is_stricter_than(entry.decision)):
        denies = entry.decision is Decision.DENY
        decided = entry.decision, "the entry denies it to everybody" if denies else "the entry asks, whoever it is"
    decision, why = decided or levels.of_entry(question.level, risk)
    return Candidate(entry=entry, risk=risk, decision=decision, why=why, lacks=lacks)


def _risk(question: Question) -> Risk:
    request = question.request
    return risk_of(request) if isinstance(request, ListFiles | GetFile | PutFile) else question.contract.risk


def _strictest(candidates: Sequence[Candidate]) -> Candidate | None:
    found: Candidate | None = None
    for each in candidates:
        if found is None or each.decision.is_stricter_than(found.decision):
            found = each
    return found
