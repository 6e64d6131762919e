"""States: which may follow which within one attempt, and what each report of a host makes of its run."""

from types import MappingProxyType

from fleet.contracts.reports import Kind
from fleet.models import RunState

#: States in which a run has ended.
FINAL = frozenset(
    {
        RunState.SUCCEEDED,
        RunState.FAILED,
        RunState.REJECTED,
        RunState.EXPIRED,
        RunState.CANCELLED,
        RunState.UNKNOWN,
    }
)
OPEN = frozenset(RunState) - FINAL
#: How an attempt that was begun may go on.
_AFTER_BEGINNING = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.UNKNOWN})
#: Which states may follow a state within one attempt. A later attempt may be in any state; a final state is followed by
#: nothing but what a late report makes of `unknown`.
MOVES: MappingProxyType[RunState, frozenset[RunState]] = MappingProxyType(
    {
        RunState.QUEUED: frozenset(RunState) - {RunState.QUEUED},
        RunState.AWAITING_APPROVAL: frozenset(RunState) - {RunState.QUEUED, RunState.AWAITING_APPROVAL},
        RunState.ACCEPTED: frozenset(RunState) - {RunState.QUEUED, RunState.AWAITING_APPROVAL, RunState.ACCEPTED},
        RunState.RUNNING: _AFTER_BEGINNING | {RunState.RECOVERING},
        # running or expired only where this attempt has not begun before, see `advancing`
        RunState.RECOVERING: _AFTER_BEGINNING | {RunState.RUNNING, RunState.EXPIRED},
        RunState.UNKNOWN: FINAL - {RunState.UNKNOWN},
        RunState.SUCCEEDED: frozenset(),
        RunState.FAILED: frozenset(),
        RunState.REJECTED: frozenset(),
        RunState.EXPIRED: frozenset(),
        RunState.CANCELLED: frozenset(),
    }
)
#: What each report of a host makes of its run.
TARGETS: MappingProxyType[Kind, RunState] = MappingProxyType(
    {
        Kind.RUN_ACCEPTED: RunState.ACCEPTED,
        Kind.RUN_AWAITING_APPROVAL: RunState.AWAITING_APPROVAL,
        Kind.RUN_APPROVED: RunState.ACCEPTED,
        Kind.RUN_STARTED: RunState.RUNNING,
        Kind.RUN_RECOVERING: RunState.RECOVERING,
        Kind.RUN_RETRYING: RunState.ACCEPTED,
        Kind.RUN_HANDED_BACK: RunState.QUEUED,
        Kind.RUN_SUCCEEDED: RunState.SUCCEEDED,
        Kind.RUN_FAILED: RunState.FAILED,
        Kind.RUN_REJECTED: RunState.REJECTED,
        Kind.RUN_EXPIRED: RunState.EXPIRED,
        Kind.RUN_CANCELLED: RunState.CANCELLED,
        Kind.RUN_UNKNOWN: RunState.UNKNOWN,
    }
)
#: Kinds of reports that are about a run.
KINDS = frozenset(
    {
        Kind.RUN_QUEUED,
        Kind.RUN_CANCEL_REQUESTED,
        Kind.RUN_PROGRESSED,
        Kind.APPROVAL_REFUSED,
        Kind.SESSION_STARTED,
        Kind.SESSION_ENDED,
        *TARGETS,
    }
)


def is_final(state: str) -> bool:
    """Say whether the run has ended. `unknown` counts, though a late report of its host may still settle it."""
    return RunState(state) in FINAL
