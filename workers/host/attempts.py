"""Attempts: the rows of the journal, of which each run has one for each try at it.

A row is finished once. A message of a run that is known begins no other attempt, unless the run was given back to the
control plane, which sends the message once more.
"""

import json
import sqlite3
from typing import Any

from fleet.contracts.reports import Kind

#: Outcome of an attempt that was handed back because the worker crashed while it ran.
CRASHED_AND_HANDED_BACK = "crashed_and_handed_back"


def coming(transaction: sqlite3.Connection, run_id: str) -> int | None:
    """Return which attempt a message begins; None where its run is known, and not one that was handed back."""
    row = transaction.execute(
        "SELECT attempt, outcome FROM journal WHERE run_id = ? ORDER BY attempt DESC LIMIT 1", (run_id,)
    ).fetchone()
    if row is None:
        return 1
    attempt, outcome = row
    return attempt + 1 if outcome in {Kind.RUN_HANDED_BACK, CRASHED_AND_HANDED_BACK} else None


def finish(
    transaction: sqlite3.Connection,
    run_id: str,
    outcome: str,
    answer: dict[str, Any] | None,
    *,
    state: str,
    at: float,
    attempt: int | None = None,
) -> int | None:
    """Finish the attempt at a run that is in `state`, and no other than `attempt`; return its number, None without one.

    An attempt that was given up may still have its say while the next one runs.
    """
    row = transaction.execute(
        "UPDATE journal SET state = 'finished', finished_at = ?, outcome = ?, answer = ?, item = NULL "
        "WHERE run_id = ? AND state = ? AND attempt = coalesce(?, attempt) RETURNING attempt",
        (at, outcome, None if answer is None else json.dumps(answer), run_id, state, attempt),
    ).fetchone()
    return None if row is None else int(row[0])
