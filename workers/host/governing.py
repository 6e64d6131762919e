"""Governing: what the policy says to a request, here and now: the fleet's, narrowed by the host's owner.

It is asked twice: when a message comes, and again when a governed run begins, because approval, waiting and retries lie
in between, in which principals are revoked and policies change. Whoever follows the links of a request asks once more,
about where they lead.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from fleet import errors, policy
from fleet.clock import BrokerClock, from_unix
from fleet.contracts import AnyContract, Request, files, shell
from fleet.contracts.envelope import Envelope
from fleet.contracts.verdicts import LONGEST_RULE, Decision, RunAs, Told
from fleet.policy import FleetPolicy, HostPolicy, Question, Verdict
from fleet.security.identity import PrincipalIdentity
from fleet.security.signing import HEADER
from workers.host import wording
from workers.host.claim import Claim
from workers.host.own import Own
from workers.host.ruling import Ruling

#: Where no policy of the fleet is known.
_NO_POLICY = FleetPolicy()


class Governor:
    """Judges for one worker session. Thread-safe."""

    def __init__(
        self,
        *,
        own: Own,
        ruling: Ruling,
        host_policy: HostPolicy,
        clock: BrokerClock,
        takes_commands: bool,
        mask: Callable[[str], str],
    ) -> None:
        """`takes_commands` is False where the worker was started with --no-shell; `mask` hides known secrets."""
        self._own = own
        self._ruling = ruling
        self._host_policy = host_policy
        self._clock = clock
        self._takes_commands = takes_commands
        self.mask = mask

    @property
    def takes_commands(self) -> bool:
        """Whether commands and files are for the fleet's policy to say, by whoever owns this host."""
        return self._takes_commands and self._host_policy.shell.enabled

    @property
    def approve_within_seconds(self) -> float:
        """How long a run may wait for approval."""
        return (self._ruling.policy or _NO_POLICY).approvals.approve_within_seconds

    @property
    def run_within_seconds(self) -> float:
        """How long an approved run may wait for its beginning, whatever the approver says."""
        return (self._ruling.policy or _NO_POLICY).approvals.run_within_seconds

    def judge(
        self, principal: PrincipalIdentity, contract: AnyContract, request: Request, envelope: Envelope
    ) -> Verdict:
        """Return what the policy says to a request of that principal's; its rule shows no known secret."""
        if contract.governed and not self._takes_commands:
            return Verdict(
                decision=Decision.DENY,
                reason="switched_off",
                rule="this host's worker was started with --no-shell (FLEET_SHELL=false)",
                risk=contract.risk,
            )
        question = self._question(principal, contract, request, envelope)
        fleet, host = self._ruling.policy, self._host_policy
        verdict = policy.decide(question, fleet=fleet, host=host)
        return replace(verdict, rule=self._sentence(verdict, question, fleet, host)) if contract.governed else verdict

    def _question(
        self, principal: PrincipalIdentity, contract: AnyContract, request: Request, envelope: Envelope
    ) -> Question:
        return Question(
            principal=principal.name,
            level=principal.level,
            labels=self._own.identity.labels,
            contract=contract,
            request=request,
            limit_seconds=envelope.limits.hard_seconds if envelope.limits else None,
        )

    def _sentence(self, verdict: Verdict, question: Question, fleet: FleetPolicy | None, host: HostPolicy) -> str:
        """Return the rule of a verdict without known secrets.

        A sentence quotes what was asked for, and shortens it: half a secret is found by nobody. So what is said of the
        masked request counts, where that is refused for the same reason.
        """
        if verdict.decision is Decision.DENY:
            masked = policy.decide(replace(question, request=self._masked(question.request)), fleet=fleet, host=host)
            if (masked.decision, masked.reason) == (verdict.decision, verdict.reason):
                verdict = masked
        return self.mask(verdict.rule)

    def _masked(self, request: Request) -> Request:
        """Return a governed request without known secrets."""
        match request:
            case shell.RunCommand():
                text: dict[str, Any] = {
                    "argv": tuple(self.mask(argument) for argument in request.argv),
                    "cwd": request.cwd and self.mask(request.cwd),
                    "env": {self.mask(name): self.mask(value) for name, value in request.env.items()},
                }
                return request.model_copy(update=text)
            case files.ListFiles() | files.GetFile() | files.PutFile():
                return request.model_copy(update={"path": self.mask(request.path)})
            case _:
                return request

    def refused(
        self, principal: PrincipalIdentity, contract: AnyContract, request: Request | None, *, reason: str, detail: str
    ) -> Told:
        """Return as a verdict what was refused before the policy was asked; `request` is None where it is none."""
        verdict = Verdict(decision=Decision.DENY, reason=reason, rule=self.mask(detail), risk=contract.risk)
        return self.told(verdict, principal, contract, request)

    def told(
        self, verdict: Verdict, principal: PrincipalIdentity, contract: AnyContract, request: Request | None
    ) -> Told:
        """Return a verdict as it goes on record."""
        argv, cwd = wording.asked(contract, request and self._masked(request))
        return Told(
            decision=verdict.decision,
            reason=verdict.reason,
            rule=verdict.rule[:LONGEST_RULE],
            risk=verdict.risk,
            level=principal.level.value,
            principal=principal.name,
            task=contract.name,
            argv=wording.recorded(argv),
            cwd=cwd,
            run_as=self._run_as(verdict, request),
            policy=self._ruling.version,
        )

    def _run_as(self, verdict: Verdict, request: Request | None) -> RunAs | None:
        """Return what a command that waits would be run as, for whoever answers."""
        if verdict.decision is not Decision.ASK or verdict.command is None or not isinstance(request, shell.RunCommand):
            return None
        granted = verdict.command
        return self.recorded(
            program=granted.program,
            argv=(granted.program, *request.argv[1:]),
            cwd=directory(granted.cwd, request),
            env=request.env,
        )

    def recorded(self, *, program: str, argv: Sequence[str], cwd: str, env: Iterable[str]) -> RunAs:
        """Return what is carried out as it goes on record."""
        return RunAs(
            program=self.mask(program),
            argv=wording.recorded([self.mask(argument) for argument in argv]),
            cwd=self.mask(cwd),
            env=tuple(self.mask(name)[: wording.LONGEST_ARGUMENT] for name in sorted(env)),
        )

    def grant(self, claim: Claim, contract: AnyContract, request: Request) -> Verdict:
        """Judge a run again that begins now; raises `errors.NotGranted` where it may not any more."""
        if claim.begin_before is not None and self._clock.now() > claim.begin_before:
            # claimed in time, and held up since: by its message, say, while the broker could not be reached
            raise _void(f"the run was to begin by {from_unix(claim.begin_before):%Y-%m-%d %H:%M:%S} UTC")
        return self._judged_again(self.current_requester(claim.item), claim, contract, request)

    def let_begin(self, claim: Claim, contract: AnyContract, request: Request) -> None:
        """Raise `errors.NotGranted` for a run that was let in and may not begin any more.

        It may have waited in the journal for a month, or for another attempt. Of a principal whose credential has
        merely run out since it goes on: it was let in in time.
        """
        principal = self.requester(claim.item)
        if self._own.trust.objection(principal, now=self._clock.now()) == "revoked":
            raise _counts_no_more(principal, "revoked")
        self._judged_again(principal, claim, contract, request)

    def _judged_again(
        self, principal: PrincipalIdentity, claim: Claim, contract: AnyContract, request: Request
    ) -> Verdict:
        verdict = self.judge(principal, contract, request, claim.envelope)
        if verdict.decision is Decision.DENY:
            raise errors.NotGranted(verdict.rule, kind=verdict.reason)
        if verdict.decision is Decision.ASK:
            if not claim.approval:
                raise errors.NotGranted(
                    f"the policy has changed meanwhile: {verdict.rule}", kind=verdict.reason, remedy="push it again"
                )
            self._require_approval(claim.approval, verdict)
        return verdict

    def require_real(
        self, claim: Claim, contract: AnyContract, request: Request, *, real: Request, granted: Verdict
    ) -> None:
        """Judge a `granted` request once more, by where it leads; raises `errors.NotGranted` where that is not granted.

        `real` is the request with each path where its links lead; the directories of both policies count by where they
        lead as well. Somebody's approval is for the words that they saw: it counts as long as no entry is about the
        real path that was not about those.
        """
        question = self._question(self.current_requester(claim.item), contract, real, claim.envelope)
        fleet, host = self._ruling.policy, policy.really(self._host_policy, os.path.realpath)
        fleet = fleet and policy.really(fleet, os.path.realpath)
        verdict = policy.decide(question, fleet=fleet, host=host)
        if verdict.decision is Decision.ALLOW:
            return
        leads = self.mask(wording.leads(request, real))
        if verdict.decision is Decision.DENY:
            sentence = self._sentence(verdict, question, fleet, host)
            raise errors.NotGranted(f"{leads}: {sentence}", kind=verdict.reason)
        if not claim.approval or not verdict.entries <= granted.entries:
            raise errors.NotGranted(
                f"{leads}, which has to be approved: {self.mask(verdict.rule)}",
                kind=verdict.reason,
                remedy="ask for it by that path, or below the directory as the policy writes it",
            )
        self._require_approval(claim.approval, verdict)

    def _require_approval(self, signed: str, verdict: Verdict) -> None:
        """Raise where a word that let a run begin would not do so any more.

        Whose credential has merely run out since could say it then.
        """
        try:
            _word, approver = self._own.read_word(signed)
        except errors.NotTrusted as exc:
            raise _void(exc.message) from exc
        if approver is None or self._own.trust.objection(approver, now=self._clock.now()) == "revoked":
            raise _void("the credential of whoever gave it is revoked")
        if verdict.risk not in approver.approves:
            raise _void(f"principal {approver.name} may not answer for what {verdict.risk}, as it does by now")

    def requester(self, item: str) -> PrincipalIdentity:
        """Return who signed a queue item that the guard has let in; raises `errors.NotGranted`."""
        try:
            headers: dict[str, Any] = json.loads(item)["headers"]
            return self._own.trust.principal(headers[HEADER]["credential"])
        except errors.NotTrusted as exc:  # the fleet's key that vouched for it counts no more
            raise errors.NotGranted(str(exc), kind="not_trusted") from exc

    def current_requester(self, item: str) -> PrincipalIdentity:
        """Return who signed a queue item; raises `errors.NotGranted`, also where its credential counts no more."""
        principal = self.requester(item)
        if objection := self._own.trust.objection(principal, now=self._clock.now()):
            raise _counts_no_more(principal, objection)
        return principal


def _counts_no_more(principal: PrincipalIdentity, objection: str) -> errors.NotGranted:
    text = f"the credential of principal {principal.name} is {objection}"
    return errors.NotGranted(text, kind=f"credential_{objection}")


def _void(why: str) -> errors.NotGranted:
    return errors.NotGranted(f"its approval counts no more: {why}", kind="approval_void", remedy="push it again")


def directory(granted: Sequence[str], request: shell.RunCommand) -> str:
    """Return where a command runs whose entry grants these directories."""
    return request.cwd or next(iter(granted), "/")
