"""Parked runs: each leaves the place where it waits for approval once, by whoever comes first."""

import json
import threading
from collections.abc import Callable

import pytest

from fleet.contracts import approvals
from fleet.contracts.control import ApproveRun, CancelRun, DenyRun
from fleet.contracts.reports import Kind
from tests.services.sessions import Session, session, time
from workers.host.admission import Admission
from workers.host.endings import Interruption

__all__ = ["session", "time"]

WITHIN = 600.0


def approval(session: Session, run: str, *, within: float = 60.0) -> ApproveRun:
    return ApproveRun(run=run, digest="d", by="bob", reason="fine", run_before=session.time.at + within)


def approved(session: Session, run: str, **wishes: float) -> bool:
    word = approval(session, run, **wishes)
    return session.parked.approve(word, word.model_dump_json(), run_before=word.run_before)


def denial(run: str) -> DenyRun:
    return DenyRun(run=run, digest="d", by="bob", reason="no")


def parked(session: Session, **wishes: object) -> str:
    return session.accept(approve_within=WITHIN, **wishes)


def test_a_parked_run_is_neither_due_nor_claimed_and_is_reported_with_its_digest(session: Session) -> None:
    run = parked(session)
    assert session.journal.due(10) == []
    assert session.journal.claim(run, durable=False) is None
    assert session.journal.waiting() == []
    [report] = session.reports(run)
    assert report.kind is Kind.RUN_AWAITING_APPROVAL
    [waiting] = session.parked.awaiting(run)
    assert report.data["digest"] == approvals.digest(waiting.item)
    assert report.data["approve_before"] == session.time.at + WITHIN
    assert report.data["verdict"]["rule"] == "students ask"


def test_an_approved_run_begins_once_and_the_same_approval_changes_nothing_more(session: Session) -> None:
    run = parked(session)
    assert approved(session, run)
    assert not approved(session, run)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    assert json.loads(claim.approval)["by"] == "bob"
    assert claim.verdict is not None
    session.endings.succeed(claim, reply={}, duration_seconds=0.0)
    assert not approved(session, run)
    assert session.journal.claim(run, durable=True) is None
    assert session.kinds(run) == [
        Kind.RUN_AWAITING_APPROVAL,
        Kind.RUN_APPROVED,
        Kind.RUN_STARTED,
        Kind.RUN_SUCCEEDED,
    ]


def test_a_message_that_comes_again_while_its_run_waits_changes_nothing(session: Session) -> None:
    run = parked(session)
    assert session.offer(run, approve_within=WITHIN).admission is Admission.KNOWN
    assert session.kinds(run) == [Kind.RUN_AWAITING_APPROVAL]


def test_a_denied_run_never_begins_and_its_caller_is_told_by_whom(session: Session) -> None:
    run = parked(session)
    assert session.parked.deny(denial(run))
    assert not approved(session, run)
    assert session.journal.claim(run, durable=True) is None
    assert session.reports(run)[-1].data == {"reason": "denied", "detail": "denied by bob: no", "by": "bob"}
    result = session.result(run)
    assert result is not None
    assert "denied by bob: no" in str(result)


def test_nobody_approves_after_the_time_for_it(session: Session) -> None:
    run = parked(session)
    session.time.passes(WITHIN + 1)
    assert not approved(session, run)
    assert session.parked.expire_parked(run)
    assert not session.parked.expire_parked(run)
    assert session.kinds(run)[-1] is Kind.RUN_EXPIRED


def test_an_approved_run_that_does_not_begin_in_time_expires(session: Session) -> None:
    run = parked(session)
    assert approved(session, run, within=5.0)
    session.time.passes(6.0)
    assert session.journal.claim(run, durable=True) is None
    assert session.kinds(run)[-1] is Kind.RUN_EXPIRED


def test_an_approval_never_gives_a_run_more_time_than_its_principal_did(session: Session) -> None:
    run = parked(session, not_after=session.time.at + 10.0)
    assert approved(session, run, within=3600.0)
    session.time.passes(11.0)
    assert session.journal.claim(run, durable=True) is None


def test_an_approved_run_still_waits_for_its_time(session: Session) -> None:
    run = parked(session, not_before=session.time.at + 30.0)
    assert approved(session, run)
    assert session.journal.due(10) == []
    session.time.passes(31.0)
    assert [found for found, _item in session.journal.due(10)] == [run]


def test_a_parked_run_survives_the_session_and_is_told_to_the_control_plane_as_unfinished(session: Session) -> None:
    run = parked(session)
    later = session.next()
    assert later.parked.deadlines() == [(run, "ann", session.time.at + WITHIN)]
    assert later.journal.unfinished(10) == [run]
    assert later.journal.interrupted() == []
    assert approved(later, run)
    later.close()


def test_an_approved_run_is_not_given_back_at_the_end_of_a_session_and_begins_in_the_next(session: Session) -> None:
    """Its message would come again as one that nobody has approved, and the word counts once."""
    run = parked(session)
    assert approved(session, run)
    assert session.journal.waiting() == []
    later = session.next()
    assert [found for found, _item in later.journal.due(10)] == [run]
    claim = later.journal.claim(run, durable=True)
    assert claim is not None
    assert claim.approval
    later.close()


def test_a_retry_of_an_approved_run_is_still_approved(session: Session) -> None:
    run = parked(session, max_retries=1)
    approved(session, run)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    session.endings.fail(claim, kind="failed", message="", duration_seconds=0.0)
    session.time.passes(30.0)
    again = session.journal.claim(run, durable=True)
    assert again is not None
    assert again.approval == claim.approval
    assert again.begin_before == claim.begin_before == claim.started_at + 60.0


def test_a_retry_of_an_approved_run_begins_by_when_the_approver_said_or_never(session: Session) -> None:
    """The worker was stopped in the first attempt, and starts again five days later."""
    run = parked(session, max_retries=1)
    approved(session, run)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    session.endings.fail(claim, kind="interrupted", message="the worker was stopped", duration_seconds=1.0)
    later = session.next()
    later.time.passes(5 * 86400.0)
    assert [found for found, _item in later.journal.due(10)] == [run]
    assert later.journal.claim(run, durable=True) is None
    assert later.kinds(run)[-1] is Kind.RUN_EXPIRED
    assert later.reports(run)[-1].attempt == 2
    assert "attempt 2 not begun by" in str(later.result(run))
    assert later.journal.unfinished(10) == []
    assert later.journal.claim(run, durable=True) is None
    later.close()


def test_an_approved_run_that_a_crash_cut_short_begins_again_in_time_or_never(session: Session) -> None:
    run = parked(session)
    approved(session, run)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    session.time.passes(61.0)
    session.endings.run_again(claim, Interruption.CRASHED)
    assert session.journal.claim(run, durable=True) is None
    assert session.kinds(run)[-1] is Kind.RUN_EXPIRED


def handed_back(session: Session) -> str:
    """Return a run that was approved, ran, was given back, and waits for approval anew."""
    run = parked(session)
    approved(session, run)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    session.endings.hand_back(claim, Interruption.STOPPED)
    assert session.offer(run, approve_within=WITHIN).admission is Admission.PARKED
    return run


@pytest.mark.parametrize("end", ["deny", "expire"])
def test_a_run_that_waits_anew_after_it_was_given_back_ends_like_any_other(session: Session, end: str) -> None:
    run = handed_back(session)
    if end == "deny":
        assert session.parked.deny(denial(run))
    else:
        session.time.passes(WITHIN + 1)
        assert session.parked.expire_parked(run)
    assert session.parked.awaiting(run) == []
    assert not approved(session, run)
    assert session.journal.claim(run, durable=True) is None


def test_the_word_that_let_an_attempt_begin_lets_no_other_begin_however_it_is_wrapped(session: Session) -> None:
    run = parked(session)
    word = approval(session, run)
    signed = {"message": word.model_dump_json(), "credential": "c", "signature": "s"}
    assert session.parked.approve(word, json.dumps(signed), run_before=word.run_before)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    session.endings.hand_back(claim, Interruption.STOPPED)
    assert session.offer(run, approve_within=WITHIN).admission is Admission.PARKED
    assert not session.parked.approve(word, json.dumps({"more": 1, **signed}), run_before=word.run_before)
    assert len(session.parked.awaiting(run)) == 1
    assert approved(session, run, within=61.0), "another word does"


def test_an_approved_run_that_was_given_back_before_begins_in_time_or_never(session: Session) -> None:
    run = handed_back(session)
    assert approved(session, run, within=5.0)
    session.time.passes(6.0)
    assert session.journal.claim(run, durable=True) is None
    assert session.kinds(run)[-1] is Kind.RUN_EXPIRED


def test_a_retry_of_an_approved_run_is_due_by_when_the_approver_said_or_there_is_none(session: Session) -> None:
    run = parked(session, max_retries=5)
    assert approved(session, run, within=2.0)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    session.time.passes(2.0)
    session.endings.fail(claim, kind="failed", message="", duration_seconds=2.0)
    assert session.kinds(run)[-1] is Kind.RUN_FAILED


@pytest.mark.parametrize("rival", ["cancel", "deny", "approve", "expire"])
def test_of_an_approval_and_a_rival_one_counts_a_hundred_times(session: Session, rival: str) -> None:
    for _ in range(100):
        run = parked(session)
        word = approval(session, run)
        rivals: dict[str, Callable[[], object]] = {
            "cancel": lambda run=run: session.unbegun.cancel(CancelRun(run=run, by="ann")),
            "deny": lambda run=run: session.parked.deny(denial(run)),
            "approve": lambda word=word: session.parked.approve(word, "{}", run_before=word.run_before),
            "expire": lambda run=run: session.parked.expire_parked(run),
        }
        both = [
            threading.Thread(target=lambda word=word: session.parked.approve(word, "{}", run_before=word.run_before)),
            threading.Thread(target=rivals[rival]),
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        claim = session.journal.claim(run, durable=False)
        kinds = session.kinds(run)[1:]
        if claim is None:
            assert Kind.RUN_STARTED not in kinds
            assert kinds[-1] in {Kind.RUN_CANCELLED, Kind.RUN_REJECTED, Kind.RUN_EXPIRED}
        else:
            assert kinds == [Kind.RUN_APPROVED, Kind.RUN_STARTED]
        assert kinds.count(Kind.RUN_APPROVED) <= 1


def test_what_waits_is_counted_by_principal(session: Session) -> None:
    for _ in range(3):
        parked(session)
    assert session.parked.count("ann") == (3, 3)
    assert session.parked.count("bob") == (0, 3)
