"""Judging: allow, ask or deny, and by which rule. Pure: the same question has the same answer, on every host.

The fleet's policy speaks first, then the host's own file, and the stricter of the two counts. Whatever is asked, there
is an answer: nothing here raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleet.contracts import Risk
from fleet.contracts.files import GetFile, ListFiles, PutFile
from fleet.contracts.shell import RunCommand
from fleet.contracts.verdicts import LONGEST_RULE, Decision
from fleet.policy import levels
from fleet.policy.entries import Command, FileGrant
from fleet.policy.fleets import FleetPolicy
from fleet.policy.host import HostPolicy
from fleet.policy.listing import AnyEntry, Candidate, Listed, listed
from fleet.policy.question import Question
from fleet.policy.rules import strictest

_HOSTS = "the host's own policy: "


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer. `command` or `file` is the entry that grants a governed request, with what the host's owner has
    narrowed it by; None for a request that is denied."""

    decision: Decision
    #: see `contracts.verdicts.Told`
    reason: str
    #: a sentence that names the entry or rule, and why
    rule: str
    #: the gravest of all entries that are about it: who approves has to be trusted with that
    risk: Risk
    command: Command | None = None
    file: FileGrant | None = None
    #: of a governed request that is not denied, the names of all entries that are about it: whoever approves it has
    #: answered for these; names of the host's own file begin as its sentences do
    entries: frozenset[str] = frozenset()


def decide(question: Question, *, fleet: FleetPolicy | None, host: HostPolicy) -> Verdict:
    """Judge a request by the fleet's policy (None where the host has none) and by the file of the host's owner."""
    if question.contract.governed:
        return _governed(question, fleet, host)
    risk = question.contract.risk
    decided = strictest(fleet.rules if fleet else (), question, risk=risk)
    first = _answer(*decided, risk) if decided else _of_level(question, risk)
    own = strictest(host.rules, question, risk=risk)
    return _narrowed(first, *own) if own else first


def _governed(question: Question, fleet: FleetPolicy | None, host: HostPolicy) -> Verdict:
    risk = question.contract.risk
    if fleet is None:
        return _denied("no_policy", "no policy of the fleet is known here", risk)
    if not host.shell.enabled:
        return _denied("switched_off", f"{_HOSTS}the shell is switched off (shell.enabled)", risk)
    found = listed(question, _entries(question, fleet) or (), fleet.rules)
    match found.strictest, found.granting:
        case Candidate(decision=Decision.DENY) as denying, _:
            return _denied("denied", denying.sentence, found.risk)
        case Candidate() as deciding, Candidate() as granting:
            # What is granted is named where it decides as well.
            deciding = granting if granting.decision is deciding.decision else deciding
            first = _with(_answer(deciding.decision, deciding.sentence, found.risk), granting.entry)
            first = replace(first, entries=found.names)
            return _of_host(first, found, granting, question, host)
    return _denied("not_in_allow_list", found.near, risk)


def _of_host(first: Verdict, found: Listed, granting: Candidate, question: Question, host: HostPolicy) -> Verdict:
    """Return what is left of a grant by the file of the host's owner."""
    own = _entries(question, host)
    if own is None:  # nothing about what may be run: only rules, about any of the entries
        for each in found.candidates:
            if decided := strictest(host.rules, question, risk=each.risk, entries=(each.entry.name,)):
                first = _narrowed(first, *decided)
        return first
    here = listed(_about_what_is_granted(question, granting.entry), own, host.rules, beside=found)
    match here.strictest, here.granting:
        case Candidate(decision=Decision.DENY) as denying, _:
            return _denied("denied", f"{_HOSTS}{denying.sentence}", here.risk)
        case Candidate() as deciding, Candidate(entry=narrowing):
            entries = first.entries | {f"{_HOSTS}{name}" for name in here.names}
            both = _narrowed_by_entry(replace(first, risk=here.risk, entries=entries), narrowing)
            return _narrowed(both, deciding.decision, deciding.sentence)
    return _denied("not_in_allow_list", f"{_HOSTS}{here.near}", found.risk)


def _entries(question: Question, policy: FleetPolicy | HostPolicy) -> Sequence[AnyEntry] | None:
    """Return the entries that may list such a request; None where a host's owner says nothing about them."""
    match question.request:
        case RunCommand():
            return policy.commands
        case ListFiles() | GetFile() | PutFile():
            return policy.files
    return ()


def _about_what_is_granted(question: Question, granted: AnyEntry) -> Question:
    """Return the question with the program that would run: by the last part of its path, the host's owner may list
    another."""
    if not (isinstance(granted, Command) and isinstance(question.request, RunCommand)):
        return question
    argv = (granted.program, *question.request.argv[1:])
    return replace(question, request=question.request.model_copy(update={"argv": argv}))


def _of_level(question: Question, risk: Risk) -> Verdict:
    decision, why = levels.of_task(question.level, risk)
    verdict = _answer(decision, f"{question.contract.name} ({risk}): {why}", risk)
    return replace(verdict, reason="not_permitted") if decision is Decision.DENY else verdict


def _with(verdict: Verdict, entry: AnyEntry) -> Verdict:
    return replace(verdict, command=entry) if isinstance(entry, Command) else replace(verdict, file=entry)


def _narrowed_by_entry(first: Verdict, narrowing: AnyEntry) -> Verdict:
    """Return a grant under an entry of the host's owner: never more, and never longer, than both say."""
    if first.command is not None and isinstance(narrowing, Command):
        return replace(first, command=first.command.narrowed(narrowing))
    if first.file is not None and isinstance(narrowing, FileGrant):
        return replace(first, file=first.file.narrowed(narrowing))
    return first


def _narrowed(verdict: Verdict, decision: Decision, why: str) -> Verdict:
    """Return the stricter of a verdict and of what the host's owner says."""
    if not decision.is_stricter_than(verdict.decision):
        return verdict
    answer = _answer(decision, f"{_HOSTS}{why}", verdict.risk)
    if decision is Decision.DENY:
        return answer
    return replace(answer, command=verdict.command, file=verdict.file, entries=verdict.entries)


def _answer(decision: Decision, rule: str, risk: Risk) -> Verdict:
    reasons = {Decision.ALLOW: "allowed", Decision.ASK: "needs_approval", Decision.DENY: "denied"}
    return Verdict(decision=decision, reason=reasons[decision], rule=rule[:LONGEST_RULE], risk=risk)


def _denied(reason: str, rule: str, risk: Risk) -> Verdict:
    return replace(_answer(Decision.DENY, rule, risk), reason=reason)
