"""Pruning: the journal forgets what is old enough, and nothing that a message could still ask for."""

import pytest

from fleet import names
from fleet.broker.results import RESULT_TTL_SECONDS
from fleet.contracts.control import CancelRun
from fleet.contracts.envelope import LONGEST_WAY_SECONDS
from fleet.contracts.reports import Kind
from tests.services.sessions import HOST, BrokerTime, Session
from workers.host import pruning
from workers.host.admission import Admission
from workers.host.endings import Interruption

DAY = 86_400.0
#: A message may begin a month after its submission, and may be on its way for another.
REMEMBERED = 2 * LONGEST_WAY_SECONDS


def ended(session: Session) -> str:
    claim = session.begun()
    session.endings.succeed(claim, reply={"x": 1}, duration_seconds=0.1)
    return claim.run_id


def remembered(session: Session) -> set[str]:
    return {run_id for (run_id,) in session.rows("run_id")}


def test_a_run_is_remembered_for_as_long_as_its_message_may_come_and_then_forgotten(
    session: Session, time: BrokerTime
) -> None:
    old = ended(session)
    time.passes(REMEMBERED)
    young = ended(session)
    session.pruning.run()
    assert session.offer(old).admission is Admission.KNOWN
    time.passes(2 * DAY)
    session.pruning.run()
    assert remembered(session) == {young}
    time.passes(REMEMBERED)
    session.pruning.run()
    assert remembered(session) == set()


def test_what_has_not_ended_is_never_forgotten_nor_how_often_it_was_tried(session: Session, time: BrokerTime) -> None:
    claim = session.begun()
    session.endings.run_again(claim, Interruption.CRASHED)
    waiting = session.accept()
    time.passes(10 * REMEMBERED)
    session.pruning.run()
    assert session.rows("attempt", "run_id = ?", (claim.run_id,)) == [(1,), (2,)]
    assert waiting in remembered(session)
    again = session.journal.claim(claim.run_id, durable=False)
    assert again is not None
    assert (again.attempt, again.envelope, again.item) == (2, claim.envelope, claim.item)


def test_an_old_attempt_is_kept_as_long_as_the_end_of_its_run(session: Session, time: BrokerTime) -> None:
    claim = session.begun(max_retries=1)
    session.endings.fail(claim, kind="broken", message="it is", duration_seconds=0.1)
    time.passes(REMEMBERED + 2 * DAY)
    again = session.journal.claim(claim.run_id, durable=False)
    assert again is not None
    session.endings.succeed(again, reply={}, duration_seconds=0.1)
    session.pruning.run()
    assert session.rows("attempt, state") == [(1, "finished"), (2, "finished")]


def test_a_run_that_ended_yesterday_does_not_answer_again_and_still_runs_once(
    session: Session, time: BrokerTime
) -> None:
    run_id = ended(session)
    time.passes(RESULT_TTL_SECONDS - 60)
    session.pruning.run()
    assert session.rows("answer IS NULL") == [(0,)]
    time.passes(120)
    session.pruning.run()
    assert session.rows("answer IS NULL, envelope") == [(1, "")]
    assert session.offer(run_id).admission is Admission.KNOWN
    assert session.kinds().count(Kind.RUN_SUCCEEDED) == 1


def test_wishes_of_which_no_run_has_come_are_forgotten_as_well(session: Session, time: BrokerTime) -> None:
    def wishes() -> int:
        with session.store.transaction() as transaction:
            return int(transaction.execute("SELECT count(*) FROM cancelled").fetchone()[0])

    session.unbegun.cancel(CancelRun(run="h1:never-came", by="ann"))
    time.passes(REMEMBERED)
    session.pruning.run()
    assert wishes() == 1
    time.passes(2 * DAY)
    session.pruning.run()
    assert wishes() == 0


@pytest.mark.parametrize("count", [6, 7])
def test_many_rows_go_in_parts_and_all_of_them_go(
    session: Session, time: BrokerTime, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(pruning, "_PART", 3)
    for _ in range(count):
        ended(session)
    kept = session.accept()
    time.passes(REMEMBERED + 2 * DAY)
    before = session.store._committed
    session.pruning.run()
    assert remembered(session) == {kept}
    assert session.store._committed - before >= count // 3 + 1  # others had their turn in between


def test_what_was_forgotten_never_runs_again_whatever_the_broker_says_the_time_is(
    session: Session, time: BrokerTime
) -> None:
    old = ended(session)
    on_its_way = names.new_run_id(HOST)
    expired = names.new_run_id(HOST)
    session.unbegun.expire(expired, expired_at=time.at, submitted_at=time.at)
    time.passes(REMEMBERED + 2 * DAY)  # it was said to be so late
    session.pruning.run()
    assert remembered(session) == set()
    time.passes(-REMEMBERED - 2 * DAY)  # and then as early as it had been
    for run_id in (old, expired, on_its_way):
        assert session.offer(run_id).admission is Admission.FORGOTTEN
    assert remembered(session) == set()
    later = session.next()
    assert later.offer(old).admission is Admission.FORGOTTEN
    time.passes(1)
    assert later.offer(names.new_run_id(HOST)).admission is Admission.DUE
    later.close()
