"""Runs: the ledger of what was pushed to whom, and what came of it.

Reports of different senders overtake each other: a host may report a run as succeeded before its principal's
`run.queued` has been read. Whichever comes first makes the row; the other fills in what it alone knows. A run is at an
attempt and in a state, and the pair only moves forward (`MOVES`), so reports may be repeated or come late without harm.

Two exceptions, each with an audit event of its own: a late report of its host settles a run that was `unknown`
(`run.settled`), and a run that its host's journal has forgotten is queued anew (`run.requeued`).
"""

from fleet.runs.cancelling import CancelRequest, request_cancels
from fleet.runs.forgetting import Forgotten, Registration, forget_missing
from fleet.runs.ledger import Applied, apply, apply_many, known_submissions
from fleet.runs.lookup import Sight, attempts, get, listing, named
from fleet.runs.settling import Verdict, let_go, mark_sent, settle
from fleet.runs.states import FINAL, KINDS, MOVES, OPEN, is_final

__all__ = [
    "FINAL",
    "KINDS",
    "MOVES",
    "OPEN",
    "Applied",
    "CancelRequest",
    "Forgotten",
    "Registration",
    "Sight",
    "Verdict",
    "apply",
    "apply_many",
    "attempts",
    "forget_missing",
    "get",
    "is_final",
    "known_submissions",
    "let_go",
    "listing",
    "mark_sent",
    "named",
    "request_cancels",
    "settle",
]
