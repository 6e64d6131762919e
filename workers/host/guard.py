"""The guard: what stands between the host's queue and its journal.

Each message passes the steps in order; the first that objects refuses it, with a reason that is reported, and a copy
among the dead letters. A refusal never crashes the worker and never stops the queue. Only then is the run written into
the journal and the message let go of.

Until a principal's signature is seen over the whole message, and this host's key in it, the message is nobody's: its
refusal says nothing about the run that it names. After that it is that run's, and its refusal ends the run.
"""

import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet import canonical, errors, logs, names
from fleet.broker.channel import MAX_MESSAGE_BYTES
from fleet.clock import BrokerClock, from_unix
from fleet.contracts import Restart, registry
from fleet.contracts.envelope import HEADER, LONGEST_WAY_SECONDS, VERSION, Envelope
from fleet.security import signing
from fleet.security.identity import PrincipalIdentity
from workers.host.journal import Admission, Claim, Journal
from workers.host.own import Own
from workers.host.refusals import Refusals, bounded

log = logs.get(__name__)

#: How far ahead of the broker's clock a message may say that it was pushed: callers extrapolate that clock, too.
_AHEAD_SECONDS = 300.0
#: How a body is written; Celery would read others too, after the run is in the journal.
_JSON = ("application/json", "utf-8")
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
    form: tuple[Any, Any] = _JSON
    run_id: str = ""
    task: str = ""
    envelope: Envelope | None = None
    principal: PrincipalIdentity | None = None
    #: a principal has signed it, for this host
    vouched: bool = False


@dataclass(frozen=True)
class Admitted:
    """A message that is in the journal, and is to begin now."""

    run_id: str
    #: where the run was claimed at once; None where that is still to be done
    claim: Claim | None


class JournalUnusable(Exception):
    """The journal cannot be written, so nothing may run; the message stays in the inbox."""


class Guard:
    """Admits messages into the journal, or refuses them."""

    def __init__(
        self,
        *,
        own: Own,
        tasks: Collection[str],
        journal: Journal,
        refusals: Refusals,
        clock: BrokerClock,
        in_hand: Callable[[bytes], bool],
    ) -> None:
        """`in_hand` says whether a message is yet to be removed from the inbox, and may come from there once more."""
        self._own = own
        self._tasks = tasks
        self._journal = journal
        self._refusals = refusals
        self._clock = clock
        self._in_hand = in_hand
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
            self.check_permission,
            self.check_arguments,
        )

    def admit(self, item: bytes, headers: Any, body: Any, *, form: tuple[Any, Any] = _JSON) -> Admitted | None:
        """Pass a message through all steps and journal it; return None where it is not to begin now.

        `form` is the content type and encoding that the message names. Raises `JournalUnusable` where this could not
        be written down.
        """
        candidate = Candidate(item, headers if isinstance(headers, dict) else {}, body, form)
        try:
            return self._judge(candidate)
        except sqlite3.Error as exc:
            raise JournalUnusable(str(exc)) from exc

    def _judge(self, candidate: Candidate) -> Admitted | None:
        try:
            for step in self.steps:
                step(candidate)
            assert candidate.envelope is not None
            accepted = self._journal.accept(
                candidate.run_id,
                task=candidate.task,
                envelope=candidate.envelope,
                item=candidate.item.decode(),
                begin=registry.get(candidate.task).restart is Restart.RERUN,
            )
        except Refusal as refusal:
            self._refuse(candidate, refusal)
            return None
        except Expired as expired:
            assert candidate.envelope is not None
            self._journal.expire(candidate.run_id, expired_at=expired.at, submitted_at=candidate.envelope.submitted_at)
            return None
        except sqlite3.Error:
            raise
        except Exception as exc:  # foreign text finds its ways; what crashed here would crash every session anew
            log.exception("message.undigested", run=candidate.run_id or None)
            self._refuse(candidate, Refusal("malformed", f"it cannot be written down ({type(exc).__name__}: {exc})"))
            return None
        if accepted.admission is Admission.FORGOTTEN:
            self._refuse(candidate, Refusal("stale", "it was pushed before a run that this host no longer remembers"))
        if accepted.admission is Admission.KNOWN and accepted.repeated and not self._in_hand(candidate.item):
            # The first was let go of long ago: somebody put it there again, who need not have been the control plane.
            self._refusals.report(
                candidate.item, "repeated", "the run is in the journal, and runs once", claimed=candidate.run_id
            )
        if accepted.admission in {Admission.DUE, Admission.BEGUN}:
            return Admitted(candidate.run_id, accepted.claim)
        return None

    def malformed(self, item: bytes, detail: str) -> None:
        """Take note of a queue item that is no message at all; raises `JournalUnusable`."""
        reason = "too_large" if len(item) > MAX_MESSAGE_BYTES else "malformed"
        try:
            self._refusals.report(item, reason, detail)
        except sqlite3.Error as exc:
            raise JournalUnusable(str(exc)) from exc

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
        if candidate.form != _JSON:
            raise Refusal("malformed", "the body is not said to be JSON in UTF-8")
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
            registry.get(candidate.task).parse(arguments)
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

    def check_permission(self, candidate: Candidate) -> None:
        assert candidate.principal is not None
        principal, contract = candidate.principal, registry.get(candidate.task)
        if not principal.may_address(self._own.identity):
            raise Refusal("not_permitted", f"principal {principal.name} may not push to this host")
        if not principal.level.may(contract.risk):
            raise Refusal("not_permitted", f"principal {principal.name} is {principal.level}, the task {contract.risk}")

    def _refuse(self, candidate: Candidate, refusal: Refusal) -> None:
        if not candidate.vouched:
            self._refusals.report(candidate.item, refusal.reason, refusal.detail, claimed=candidate.run_id)
            return
        detail = bounded(refusal.detail)
        log.warning("message.refused", run=candidate.run_id, reason=refusal.reason, detail=detail)
        self._journal.refuse(candidate.run_id, reason=refusal.reason, detail=detail)
        self._refusals.bury(candidate.item, refusal.reason, detail)
