"""Endings: an attempt ends once, its report and result with it; what follows it is what was asked for."""

import pytest

from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind
from tests.services.sessions import BrokerTime, Session
from workers.host.admission import Admission
from workers.host.claim import Claim
from workers.host.endings import MOST_CRASHES, Interruption


def fail(session: Session, claim: Claim) -> None:
    session.endings.fail(claim, kind="broken", message="it is", duration_seconds=0.5)


def claimed(session: Session, run_id: str) -> Claim:
    claim = session.journal.claim(run_id, durable=False)
    assert claim is not None
    return claim


def test_a_failed_run_is_tried_again_as_often_as_was_asked_for_and_then_has_failed(session: Session) -> None:
    claim = session.begun(max_retries=2)
    for attempt in (1, 2, 3):
        assert claim.attempt == attempt
        fail(session, claim)
        if attempt < 3:
            claim = claimed(session, claim.run_id)
    told = session.reports(claim.run_id)
    assert [(report.kind, report.attempt) for report in told] == [
        (Kind.RUN_ACCEPTED, 1),
        (Kind.RUN_STARTED, 1),
        (Kind.RUN_RETRYING, 2),
        (Kind.RUN_STARTED, 2),
        (Kind.RUN_RETRYING, 3),
        (Kind.RUN_STARTED, 3),
        (Kind.RUN_FAILED, 3),
    ]
    assert told[2].data["kind"] == "broken"
    assert session.journal.unfinished(10) == []


def test_each_retry_waits_twice_as_long_as_the_one_before_up_to_a_limit(session: Session, time: BrokerTime) -> None:
    claim = session.begun(max_retries=12)
    waits = []
    for _ in range(12):
        fail(session, claim)
        waits.append(session.reports(claim.run_id)[-1].data["not_before"] - time.at)
        claim = claimed(session, claim.run_id)
    for number, wait in enumerate(waits):
        assert wait == pytest.approx(min(2.0**number, 600.0), rel=0.21)


def test_a_retry_is_given_to_the_pool_when_its_time_has_come(session: Session, time: BrokerTime) -> None:
    claim = session.begun(max_retries=1)
    fail(session, claim)
    assert session.journal.due(10) == []
    time.passes(1.3)
    assert [run_id for run_id, _item in session.journal.due(10)] == [claim.run_id]


def test_a_retry_that_would_come_after_the_runs_time_is_not_made(session: Session, time: BrokerTime) -> None:
    claim = session.begun(max_retries=5, not_after=time.at + 0.5)
    fail(session, claim)
    assert session.kinds(claim.run_id)[-1] is Kind.RUN_FAILED


def test_a_retry_that_waits_does_not_expire_neither_by_itself_nor_by_a_late_copy_of_its_message(
    session: Session, time: BrokerTime
) -> None:
    claim = session.begun(max_retries=1, not_after=time.at + 5)
    fail(session, claim)
    time.passes(10)
    session.unbegun.expire(claim.run_id, expired_at=time.at - 5, submitted_at=time.at - 10)
    assert claimed(session, claim.run_id).attempt == 2
    assert Kind.RUN_EXPIRED not in session.kinds()


def test_an_attempt_that_was_given_up_does_not_end_the_next_one(session: Session) -> None:
    given_up = session.begun(max_retries=2)
    fail(session, given_up)
    second = claimed(session, given_up.run_id)
    session.endings.succeed(given_up, reply={"late": True}, duration_seconds=9.0)
    fail(session, given_up)
    session.endings.run_again(given_up, Interruption.STOPPED)
    session.endings.hand_back(given_up, Interruption.STOPPED)
    assert session.journal.interrupted() == [second]
    session.endings.succeed(second, reply={"late": False}, duration_seconds=1.0)
    assert session.reports()[-1].attempt == 2
    result = session.result(second.run_id)
    assert result is not None
    assert result["result"] == {"late": False}


def test_the_third_crash_ends_a_run_that_may_be_repeated(session: Session) -> None:
    claim = session.begun()
    for _ in range(MOST_CRASHES - 1):
        session.endings.run_again(claim, Interruption.CRASHED)
        claim = claimed(session, claim.run_id)
    session.endings.run_again(claim, Interruption.CRASHED)
    assert session.reports()[-1].kind is Kind.RUN_FAILED
    assert session.reports()[-1].data["kind"] == "poison"
    assert session.journal.unfinished(10) == []


def test_a_worker_that_is_stopped_time_and_again_does_not_make_its_run_a_poison(session: Session) -> None:
    claim = session.begun()
    for _ in range(2 * MOST_CRASHES):
        session.endings.run_again(claim, Interruption.STOPPED)
        claim = claimed(session, claim.run_id)
    assert session.journal.interrupted() == [claim]


def test_a_run_that_was_handed_back_begins_anew_when_its_message_comes_again(session: Session) -> None:
    claim = session.begun()
    session.endings.hand_back(claim, Interruption.CRASHED)
    assert session.journal.unfinished(10) == []
    assert session.offer(claim.run_id).admission is Admission.DUE
    assert session.offer(claim.run_id).admission is Admission.KNOWN
    assert claimed(session, claim.run_id).attempt == 2
    assert [(report.kind, report.attempt) for report in session.reports()] == [
        (Kind.RUN_ACCEPTED, 1),
        (Kind.RUN_STARTED, 1),
        (Kind.RUN_HANDED_BACK, 2),
        (Kind.RUN_ACCEPTED, 2),
        (Kind.RUN_STARTED, 2),
    ]


def test_the_third_crash_ends_a_run_that_is_handed_back_as_well(session: Session) -> None:
    claim = session.begun()
    session.endings.hand_back(claim, Interruption.STOPPED)  # no crash
    for _ in range(MOST_CRASHES):
        session.accept(claim.run_id)
        claim = claimed(session, claim.run_id)
        session.endings.hand_back(claim, Interruption.CRASHED)
    assert session.reports()[-1].kind is Kind.RUN_FAILED
    assert session.reports()[-1].data["kind"] == "poison"
    assert session.offer(claim.run_id).admission is Admission.KNOWN


def test_a_run_that_was_handed_back_and_comes_again_too_late_expires(session: Session, time: BrokerTime) -> None:
    claim = session.begun(not_after=time.at + 5)
    session.endings.hand_back(claim, Interruption.CRASHED)
    time.passes(10)
    for _ in range(2):
        session.unbegun.expire(claim.run_id, expired_at=time.at - 5, submitted_at=time.at - 10)
    assert session.kinds().count(Kind.RUN_EXPIRED) == 1
    assert session.offer(claim.run_id).admission is Admission.KNOWN


def test_a_run_that_was_handed_back_can_be_cancelled_before_it_comes_again(session: Session) -> None:
    claim = session.begun()
    session.endings.hand_back(claim, Interruption.CRASHED)
    assert session.unbegun.cancel(CancelRun(run=claim.run_id, by="ann")) is False
    assert session.offer(claim.run_id).admission is Admission.CANCELLED
    assert session.kinds()[-1] is Kind.RUN_CANCELLED


def test_a_run_of_which_nobody_knows_the_outcome_says_so_to_whoever_waits_and_is_not_begun_again(
    session: Session,
) -> None:
    claim = session.begun(max_retries=5)
    session.endings.lose_track(claim, message="it was in the middle")
    result = session.result(claim.run_id)
    assert result is not None
    assert result["status"] == "FAILURE"
    assert result["result"] == {"state": "unknown", "kind": "unknown", "message": "it was in the middle"}
    assert session.journal.claim(claim.run_id, durable=False) is None
    assert session.offer(claim.run_id).admission is Admission.KNOWN


def test_a_cancelled_run_says_who_asked_and_why(session: Session) -> None:
    claim = session.begun()
    session.endings.cancel(claim, CancelRun(run=claim.run_id, by="ann", reason="wrong host"))
    assert session.reports()[-1].data == {"by": "ann", "reason": "wrong host", "begun": True}
    result = session.result(claim.run_id)
    assert result is not None
    assert result["result"]["message"] == "cancelled by ann: wrong host"


def test_what_is_recovered_is_counted_until_it_ends(session: Session) -> None:
    claim = session.begun()
    later = session.next()
    later.endings.recover(claim, how="rerun")
    assert later.journal.recovering() == 1
    later.endings.run_again(claim, Interruption.CRASHED)
    assert later.journal.recovering() == 1
    later.endings.succeed(claimed(later, claim.run_id), reply={}, duration_seconds=0.1)
    assert later.journal.recovering() == 0
    later.close()
