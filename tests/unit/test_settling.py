"""Settling: what is written down of an attempt of which something goes on that the worker may not end."""

from threading import Event
from typing import Any, get_args

import pytest

from fleet.contracts import shell
from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import SessionEnded
from tests.services.sessions import Session, session, time
from workers.host.running import EndRequest, Why
from workers.host.settling import Settling
from workers.host.spool import Ending, EndingKind

__all__ = ["session", "time"]

PIDS = (4711, 4712)
CANCEL = EndRequest(Why.CANCELLED, CancelRun(run="h1:x", by="ann"))


def settled(session: Session, ending: Ending, request: EndRequest | None = None, **wishes: Any) -> str:
    """Have an attempt settled that may be tried again; return its run."""
    claim = session.begun(max_retries=3, **wishes)
    settling = Settling(
        session.endings,
        {},
        broker_clock=session.time,
        stopping=Event(),
        on_abandoned=lambda _run: None,
        kept=lambda _run, _attempt: b"",
        mask=str,
    )
    settling.by_ending(claim, ending, request)
    return claim.run_id


@pytest.mark.parametrize("task", [shell.RUN.name, "fleet.host.ping"])
@pytest.mark.parametrize("kind", ["time_limit", "cancelled", "stopped", "died"])
def test_what_was_to_end_and_goes_on_is_unknown_and_not_tried_again(
    session: Session, kind: EndingKind, task: str
) -> None:
    ending = Ending(kind, 60.0, left_running=PIDS)
    run = settled(session, ending, CANCEL if kind == "cancelled" else None, task=task)
    last = session.reports(run)[-1]
    assert last.kind is Kind.RUN_UNKNOWN
    assert "it was to end after 60.0 s" in last.data["message"]
    assert "which this worker may not end (process 4711, 4712)" in last.data["message"]
    assert session.journal.unfinished(10) == []
    if task == shell.RUN.name:
        record = SessionEnded.model_validate(session.reports(run)[-2].data)
        assert (record.outcome, record.detail) == ("unknown", last.data["message"])


def test_a_command_that_ended_and_left_something_has_succeeded_and_its_record_says_what_it_left(
    session: Session,
) -> None:
    run = settled(session, Ending("exited", 1.0, exit_status=0, left_running=PIDS), task=shell.RUN.name)
    *_, ended, last = session.reports(run)
    assert last.kind is Kind.RUN_SUCCEEDED
    record = SessionEnded.model_validate(ended.data)
    assert (record.outcome, record.exit_code) == ("exited", 0)
    assert "(process 4711, 4712)" in record.detail


def test_a_function_that_failed_and_left_something_is_not_tried_again_beside_it(session: Session) -> None:
    run = settled(session, Ending("failed", 1.0, error=("broken", "it is"), left_running=tuple(range(100))))
    last = session.reports(run)[-1]
    assert (last.kind, last.data["kind"]) == (Kind.RUN_FAILED, "broken")
    assert last.data["message"].startswith("it is; what goes on without a limit")
    assert last.data["message"].endswith("18, 19, …)")


@pytest.mark.parametrize("kind", get_args(EndingKind))
def test_of_what_has_ended_altogether_nothing_is_said_to_go_on(session: Session, kind: EndingKind) -> None:
    run = settled(session, Ending(kind, 1.0, exit_status=0), task=shell.RUN.name)
    assert "may not end" not in str([report.data for report in session.reports(run)])
