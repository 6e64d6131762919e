"""Judging: what is to be done about a run that should be further than it is. Decides, and does nothing.

A host that is connected is never second-guessed: it is asked, by sending it the message again. What certainly never
began is `expired` or `cancelled`; of what may have begun, and whose host is gone, the outcome is `unknown`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from fleet import clock, errors
from fleet.contracts import Restart, registry
from fleet.contracts.envelope import HEADER, LONGEST_WAY_SECONDS, Retry
from fleet.contracts.hosts import is_unlisted
from fleet.contracts.presence import PRESENCE_TTL
from fleet.models import Host, Membership, Run, RunState
from fleet.runs import Verdict
from workers.control.whereabouts import Place

#: How long a run's time is over before the control plane ends it.
GRACE = timedelta(seconds=60)
#: A host that takes a message at the last moment decides itself.
_LAST_MOMENT = timedelta(seconds=5)
#: How long a host's reports may be on their way before a doubt about a run is settled.
_REPORTS_TAKE = timedelta(seconds=10)
#: Where `run.queued` has not come: the limit of a contract that sets none.
_USUAL_LIMIT_SECONDS = 3600.0
#: Attempts that crashes may add (`workers.host.endings`): the third one is the last.
_ATTEMPTS_BY_CRASHES = 2
_DISBELIEVED = (
    "its message is lost, and was signed under a key of the fleet's that is retired, so no host would take it again; "
    "push it again if it has had no effect"
)
_GONE = "its host was put out of the fleet"
#: States in which a host has the run and may put it back into its queue: it has not begun.
_TAKEN = frozenset({RunState.AWAITING_APPROVAL, RunState.ACCEPTED})
_NOT_BEGUN = _TAKEN | {RunState.QUEUED}
#: States in which it may have begun: one that waits for approval may have got it since its host was heard last.
_BEGUN = _TAKEN | {RunState.RUNNING, RunState.RECOVERING}
#: How long after its approval a run may begin at most, whatever the policy says (`fleet.policy.fleets.Approvals`).
_APPROVALS_LAST = timedelta(days=30)


class Step(Enum):
    """What to do about a run."""

    WAIT = "wait"
    #: send its message again
    SEND = "send"
    #: take its message out of the queue, and end it by the verdict where it was there
    WITHDRAW = "withdraw"
    #: end it by the verdict
    END = "end"


@dataclass(frozen=True, kw_only=True)
class Decision:
    step: Step
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of a run's host at the moment."""

    #: None where there is no such host
    host: Host | None
    connected: bool
    #: missing for so long, and watched for so long, that it counts as offline
    silent: bool
    #: whether reports of it wait to be taken in: they may say what is asked
    has_reports: bool

    def is_gone(self, run: Run) -> bool:
        """Say whether the machine that the run was pushed to is no host any more, whoever has its name now."""
        if self.host is None:
            return False  # nobody of that name was ever let in; it may be yet
        if self.host.membership != Membership.ACCEPTED:
            return True
        return run.state == RunState.QUEUED and run.submitted_at < self.host.enrolled_at

    @property
    def mute(self) -> bool:
        """Whether nothing is to be heard of it for now."""
        return self.silent and not self.has_reports

    def had_left_by(self, moment: datetime) -> bool:
        """Say whether the host has certainly not been there since that moment."""
        if not self.silent or (self.host and is_unlisted(self.host.facts)):  # nobody writes down when that is there
            return False
        seen = self.host.last_seen_at if self.host else None
        return seen is None or seen + PRESENCE_TTL < moment

    @property
    def stopped(self) -> bool:
        """Whether its last session ended cleanly, and put back what had not begun."""
        return not self.connected and self.host is not None and self.host.signed_off_at is not None


WAIT = Decision(step=Step.WAIT)
SEND = Decision(step=Step.SEND)


def of_queued(  # noqa: PLR0911 - one line a case
    run: Run, place: Place, standing: Standing, *, now: datetime
) -> Decision:
    """Decide about a run in the state `queued`."""
    if standing.is_gone(run):
        withdrawn = _withdraw(run, RunState.CANCELLED, _GONE)
        return withdrawn if place is Place.QUEUE else _end(run, RunState.UNKNOWN, _GONE)
    over = _way_is_over(run, now)
    if place is Place.QUEUE:
        return _of_waiting(run, standing, over=over)
    if place is Place.INBOX:
        return _end_if_mute(run, standing, now=now)
    doubted_at = _doubted_at(run)
    if doubted_at is not None:
        settled = not standing.has_reports and now > doubted_at + _REPORTS_TAKE
        return _end(run, RunState.UNKNOWN, "it was in another journal, which may have begun it") if settled else WAIT
    if not over or standing.connected:
        return SEND
    if standing.mute and run.sent_again_at is None and standing.had_left_by(run.submitted_at):
        return _end(run, RunState.EXPIRED, "its time was over before its host came back")
    return _end_if_mute(run, standing, now=now)


def disbelieved(run: Run) -> Verdict:
    """Return how a run ends whose message is lost, and would be refused if it came again."""
    return _verdict(run, RunState.UNKNOWN, _DISBELIEVED, frozenset({RunState.QUEUED}))


def of_begun(run: Run, place: Place, standing: Standing, *, now: datetime) -> Decision:
    """Decide about a run that a host has accepted."""
    if standing.is_gone(run):
        return _end(run, RunState.UNKNOWN, _GONE)
    if not standing.mute:
        return WAIT
    if place is Place.QUEUE and run.state in _TAKEN:
        certain = standing.stopped and run.sent_again_at is None and _way_is_over(run, now)
        return _withdraw(run, RunState.EXPIRED, "its time was over before its host came back") if certain else WAIT
    return _end_if_mute(run, standing, now=now)


def of_cancelled(run: Run, place: Place, standing: Standing, *, reason: str) -> Decision:
    """Decide about a run whose end was asked for. What is not taken out of the queue is its host's to end."""
    waits = run.state == RunState.QUEUED or (run.state in _TAKEN and standing.stopped)
    # of a message that was sent again, another copy may have been taken before
    if place is not Place.QUEUE or not waits or run.sent_again_at is not None:
        return WAIT
    why = f": {reason}" if reason else ""
    return _withdraw(run, RunState.CANCELLED, f"cancelled by {run.cancel_requested_by}{why}")


def deadline(run: Run) -> datetime | None:
    """Return when a run has ended for certain, as long as its host lives; None for one that waits without limit."""
    begun_at = run.started_at
    if begun_at is None and run.state in {RunState.RUNNING, RunState.RECOVERING}:
        begun_at = run.assigned_at or run.submitted_at
    latest = begun_at or _begins_before(run)
    if latest is None:
        return None
    limit = run.limit_seconds or _USUAL_LIMIT_SECONDS
    # waits between attempts are up to a fifth longer than told (`workers.host.endings`)
    attempts = 1 + run.max_retries + (_ATTEMPTS_BY_CRASHES if _may_run_again(run.task) else 0)
    return _later(latest, timedelta(seconds=attempts * limit + run.max_retries * _longest_backoff(run) * 1.2) + GRACE)


def _begins_before(run: Run) -> datetime | None:
    """Return until when a run may begin that has not; None where nothing limits that."""
    progress = run.progress or {}
    moments = [] if run.not_after is None else [run.not_after]
    if (approved := progress.get("run_before")) is not None:
        moments.append(clock.from_unix(approved))
    elif (asked := progress.get("approve_before")) is not None:
        moments.append(_later(max(clock.from_unix(asked), run.not_before or run.submitted_at), _APPROVALS_LAST))
    return min(moments, default=None)


def _of_waiting(run: Run, standing: Standing, *, over: bool) -> Decision:
    if not over:
        return WAIT
    if run.sent_again_at is None or standing.had_left_by(run.submitted_at):
        return _withdraw(run, RunState.EXPIRED, "its time was over while it waited in its host's queue")
    if standing.mute:
        # an earlier copy may have been taken, and what came of it was never told
        return _withdraw(run, RunState.UNKNOWN, "it was sent again, and its host has not come back in time")
    return WAIT


def _end_if_mute(run: Run, standing: Standing, *, now: datetime) -> Decision:
    until = deadline(run)
    if not standing.mute or until is None or now < until:
        return WAIT
    return _end(
        run, RunState.UNKNOWN, "its host fell silent and its time is over; whether it had its effect is not known"
    )


def _way_is_over(run: Run, now: datetime) -> bool:
    if run.not_after is not None and now > _later(run.not_after, _LAST_MOMENT):
        return True
    return now > _later(run.not_before or run.submitted_at, timedelta(seconds=LONGEST_WAY_SECONDS))


def _later(moment: datetime, by: timedelta) -> datetime:
    """Return a moment after another; the last one of the calendar, where it is beyond that: callers name any moment."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _doubted_at(run: Run) -> datetime | None:
    moment = (run.progress or {}).get("doubted_at")
    return None if moment is None else clock.from_unix(moment)


def _withdraw(run: Run, state: RunState, message: str) -> Decision:
    return Decision(step=Step.WITHDRAW, verdict=_verdict(run, state, message, _NOT_BEGUN))


def _end(run: Run, state: RunState, message: str) -> Decision:
    expected = frozenset({RunState.QUEUED}) if run.state == RunState.QUEUED else _BEGUN
    return Decision(step=Step.END, verdict=_verdict(run, state, message, expected))


def _verdict(run: Run, state: RunState, message: str, expected: frozenset[RunState]) -> Verdict:
    return Verdict(run=run.id, state=state, kind=state.value, message=message, attempt=run.attempt, expected=expected)


def _may_run_again(task: str) -> bool:
    try:
        return registry.get(task).restart is not Restart.UNKNOWN
    except errors.UnknownTask:
        return True  # nobody here knows, so there is time for it


def _longest_backoff(run: Run) -> float:
    """Return the longest wait between two attempts, out of the message: the ledger has no column for it."""
    if not run.max_retries or not run.message:
        return 0.0
    try:
        envelope: Mapping[str, object] = json.loads(run.message)["headers"][HEADER]
        return Retry.model_validate(envelope.get("retry", {})).backoff_max_seconds
    except (ValueError, KeyError, TypeError, AttributeError):
        return Retry().backoff_max_seconds
