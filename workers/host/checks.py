"""Checks: the steps between a message and its admission, in their order; the first that objects refuses it.

They read the message, what this host is and whom it trusts, and ask the policy at the end; nothing is written by them.

Until a principal's signature is seen over the whole message, and this host's key in it, the message is nobody's
(`Candidate.vouched`).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet import canonical, errors, names
from fleet.broker.channel import MAX_MESSAGE_BYTES
from fleet.clock import BrokerClock, from_unix
from fleet.contracts import Request, registry
from fleet.contracts.envelope import DEEPEST_METADATA, HEADER, LONGEST_WAY_SECONDS, VERSION, Envelope, is_deep
from fleet.contracts.verdicts import Decision, Told
from fleet.security import signing
from fleet.security.identity import PrincipalIdentity
from workers.host.governing import Governor
from workers.host.own import Own

#: How far ahead of the broker's clock a message may say that it was pushed: callers extrapolate that clock, too.
_AHEAD_SECONDS = 300.0
#: How a body is written; Celery would read others too, after the run is in the journal.
JSON = ("application/json", "utf-8")
#: Headers by which Celery delays, drops or unpacks a message on its own, beside the journal.
_ACTED_UPON = ("eta", "expires", "timelimit", "compression")


class Refusal(Exception):
    """A step objects. `reason` is a catalogued word, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Expired(Exception):
    """The message came after `at`, the last moment for it, in unix seconds."""

    def __init__(self, at: float) -> None:
        super().__init__(at)
        self.at = at


@dataclass
class Candidate:
    """A message on its way through the steps."""

    item: bytes
    headers: dict[str, Any]
    body: Any
    #: content type and encoding
    form: tuple[Any, Any] = JSON
    run_id: str = ""
    task: str = ""
    envelope: Envelope | None = None
    principal: PrincipalIdentity | None = None
    request: Request | None = None
    #: how the policy judged it, where it goes on record
    verdict: Told | None = None
    #: a principal has signed it, for this host
    vouched: bool = False


class Checks:
    """The steps of one host."""

    def __init__(self, *, own: Own, tasks: Collection[str], governor: Governor, clock: BrokerClock) -> None:
        """`tasks` are the names of those that this worker offers."""
        self._own = own
        self._tasks = tasks
        self._governor = governor
        self._clock = clock
        self.steps: tuple[Callable[[Candidate], None], ...] = (
            self.refuse_oversized,
            self.read_run_id,
            self.read_envelope,
            self.check_signature,
            self.refuse_misdirected,
            self.refuse_revoked,
            self.refuse_unknown_task,
            self.refuse_foreign_form,
            self.refuse_stale,
            self.refuse_late,
            self.check_address,
            self.check_arguments,
            self.check_policy,
        )

    def pass_through(self, candidate: Candidate) -> None:
        """Take a message through all steps; raises `Refusal` or `Expired` where one objects."""
        for step in self.steps:
            step(candidate)

    def refuse_oversized(self, candidate: Candidate) -> None:
        if len(candidate.item) > MAX_MESSAGE_BYTES:
            raise Refusal("too_large", f"{len(candidate.item):,} bytes; {MAX_MESSAGE_BYTES:,} are allowed")

    def read_run_id(self, candidate: Candidate) -> None:
        run_id = candidate.headers.get("id")
        try:
            owner = names.host_of_run(run_id) if isinstance(run_id, str) else None
        except errors.InvalidValue:
            owner = None
        candidate.run_id = str(run_id) if owner else ""
        if owner is None:
            raise Refusal("malformed", "the id is not a task id")
        if owner != self._own.host:
            raise Refusal("misdirected", f"it is a run of host {owner!r}")

    def read_envelope(self, candidate: Candidate) -> None:
        header = candidate.headers.get(HEADER)
        if not isinstance(header, dict) or header.get("v") != VERSION:
            raise Refusal("malformed", "no envelope of a version that this worker knows")
        try:
            candidate.envelope = Envelope.model_validate(header)
        except ValidationError as exc:
            fields = ", ".join(".".join(map(str, error["loc"])) for error in exc.errors())
            raise Refusal("malformed", f"the envelope is wrong in: {fields}") from exc

    def check_signature(self, candidate: Candidate) -> None:
        assert candidate.envelope is not None
        try:
            candidate.principal = signing.check_message(
                candidate.headers, candidate.body, form=candidate.form, trust=self._own.trust
            )
        except errors.NotTrusted as exc:
            raise Refusal("not_trusted", exc.message) from exc
        if candidate.principal.name != candidate.envelope.submitted_by:
            raise Refusal("not_trusted", f"{candidate.principal.name} pushed it in another's name")

    def refuse_misdirected(self, candidate: Candidate) -> None:
        assert candidate.envelope is not None
        if candidate.envelope.host != self._own.host:
            raise Refusal("misdirected", f"it is meant for host {candidate.envelope.host!r}")
        if candidate.envelope.host_key not in self._own.keys:
            raise Refusal("misdirected", "it is meant for another machine that had this name")
        candidate.vouched = True

    def refuse_revoked(self, candidate: Candidate) -> None:
        assert candidate.principal is not None
        if objection := self._own.trust.objection(candidate.principal, now=self._clock.now()):
            raise Refusal(f"credential_{objection}", f"the credential of principal {candidate.principal.name}")

    def refuse_unknown_task(self, candidate: Candidate) -> None:
        task = candidate.headers.get("task")
        if not isinstance(task, str) or task not in self._tasks:
            raise Refusal("unknown_task", f"this worker does not offer {task!r}")
        candidate.task = task

    def refuse_foreign_form(self, candidate: Candidate) -> None:
        if candidate.form != JSON:
            raise Refusal("malformed", "the body is not said to be JSON in UTF-8")
        assert candidate.envelope is not None
        if is_deep(candidate.envelope.metadata, DEEPEST_METADATA):
            raise Refusal("malformed", f"metadata is nested more than {DEEPEST_METADATA} levels deep")
        acted_upon = [name for name in _ACTED_UPON if candidate.headers.get(name) not in (None, [None, None])]
        if acted_upon:
            raise Refusal("malformed", f"a host does not take the header {acted_upon[0]}")

    def check_arguments(self, candidate: Candidate) -> None:
        try:
            args, arguments, embed = canonical.read(candidate.body)
        except (ValueError, TypeError, RecursionError) as exc:
            raise Refusal("malformed", "the body is not JSON of arguments") from exc
        if args or not isinstance(arguments, dict):
            raise Refusal("invalid_arguments", "arguments are given by name")
        if isinstance(embed, dict) and any(embed.get(key) for key in ("callbacks", "errbacks", "chain", "chord")):
            raise Refusal("callbacks", "a host pushes nothing: no links, chains or chords")
        try:
            candidate.request = registry.get(candidate.task).parse(arguments)
        except errors.InvalidArguments as exc:
            raise Refusal("invalid_arguments", str(exc)) from exc

    def refuse_stale(self, candidate: Candidate) -> None:
        assert candidate.envelope is not None
        submitted_at = candidate.envelope.submitted_at
        if submitted_at > self._clock.now() + _AHEAD_SECONDS:
            raise Refusal("from_the_future", "it says that it will be pushed only later")
        begins_at = max(submitted_at, candidate.envelope.not_before or 0.0)
        if begins_at - submitted_at > LONGEST_WAY_SECONDS:
            raise Refusal("malformed", "the envelope is wrong in: not_before")
        if self._clock.now() - begins_at > LONGEST_WAY_SECONDS:  # the journal may have forgotten that it ran
            raise Refusal("stale", f"it was on its way for more than {LONGEST_WAY_SECONDS / 86_400:.0f} days")

    def refuse_late(self, candidate: Candidate) -> None:
        assert candidate.envelope is not None
        not_after = candidate.envelope.not_after
        if not_after is not None and self._clock.now() > not_after:
            try:
                from_unix(not_after)
            except (ValueError, OverflowError, OSError) as exc:
                raise Refusal("malformed", "the envelope is wrong in: not_after") from exc
            raise Expired(not_after)

    def check_address(self, candidate: Candidate) -> None:
        assert candidate.principal is not None
        if not candidate.principal.may_address(self._own.identity):
            raise Refusal("not_permitted", f"principal {candidate.principal.name} may not push to this host")

    def check_policy(self, candidate: Candidate) -> None:
        assert candidate.principal is not None
        assert candidate.request is not None
        assert candidate.envelope is not None
        contract = registry.get(candidate.task)
        verdict = self._governor.judge(candidate.principal, contract, candidate.request, candidate.envelope)
        if contract.governed or verdict.decision is Decision.ASK:
            candidate.verdict = self._governor.told(verdict, candidate.principal, contract, candidate.request)
        if verdict.decision is Decision.DENY:
            raise Refusal(verdict.reason, verdict.rule)
