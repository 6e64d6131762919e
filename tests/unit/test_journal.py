"""The journal and the outbox: one file, one truth, nothing twice, no gap."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import errors, names
from fleet.clock import BrokerClock
from fleet.contracts.control import CancelRun
from fleet.contracts.envelope import Envelope
from fleet.contracts.reports import Kind
from tests.services.sessions import BrokerTime, Session
from workers.host.admission import Admission, Admissions
from workers.host.endings import Endings, Interruption
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.store import Store
from workers.host.unbegun import Unbegun


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "journal.db", host="h1")
    yield opened
    opened.close()


@pytest.fixture
def outbox(store: Store) -> Outbox:
    return Outbox(store, host="h1", epoch=1, clock=BrokerClock())


@pytest.fixture
def unbegun(store: Store, outbox: Outbox) -> Unbegun:
    return Unbegun(store, outbox, clock=BrokerClock())


@pytest.fixture
def admissions(store: Store, outbox: Outbox, unbegun: Unbegun) -> Admissions:
    return Admissions(store, outbox, unbegun=unbegun, clock=BrokerClock())


@pytest.fixture
def journal(store: Store, outbox: Outbox, unbegun: Unbegun) -> Journal:
    return Journal(store, outbox, unbegun=unbegun, clock=BrokerClock())


@pytest.fixture
def endings(store: Store, outbox: Outbox) -> Endings:
    return Endings(store, outbox, clock=BrokerClock())


def enveloped(*, not_after: float | None = None) -> Envelope:
    return Envelope(host="h1", host_key="k" * 43, submitted_by="ann", submitted_at=0.0, not_after=not_after)


def accept(admissions: Admissions, *, not_after: float | None = None) -> str:
    run_id = names.new_run_id("h1")
    envelope = enveloped(not_after=not_after)
    assert admissions.accept(run_id, task="fleet.host.ping", envelope=envelope, item="{}").admission is Admission.DUE
    return run_id


def kinds(outbox: Outbox) -> list[str]:
    return [json.loads(out.report)["kind"] for out in outbox.unsent()]


def test_a_run_is_accepted_once(admissions: Admissions, outbox: Outbox) -> None:
    run_id = accept(admissions)
    envelope = enveloped()
    assert admissions.accept(run_id, task="fleet.host.ping", envelope=envelope, item="{}").admission is Admission.KNOWN
    assert kinds(outbox) == [Kind.RUN_ACCEPTED]


def test_of_twenty_threads_one_claims_a_run(admissions: Admissions, journal: Journal) -> None:
    run_id = accept(admissions)
    barrier, claims = threading.Barrier(20), []

    def claim() -> None:
        barrier.wait()
        claims.append(journal.claim(run_id, durable=True))

    threads = [threading.Thread(target=claim) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in claims) == 1


def test_a_run_whose_time_is_over_expires_instead_of_being_claimed(
    admissions: Admissions, journal: Journal, outbox: Outbox
) -> None:
    run_id = accept(admissions, not_after=1.0)
    assert journal.claim(run_id, durable=True) is None
    assert kinds(outbox) == [Kind.RUN_ACCEPTED, Kind.RUN_EXPIRED]
    assert journal.claim(run_id, durable=True) is None


def test_the_result_is_written_with_the_end_of_the_run_and_only_once(
    admissions: Admissions, journal: Journal, endings: Endings, outbox: Outbox
) -> None:
    claim = journal.claim(accept(admissions), durable=False)
    assert claim is not None
    endings.succeed(claim, reply={"x": 1}, duration_seconds=0.1)
    endings.fail(claim, kind="late", message="too late", duration_seconds=0.2)
    *_, last = outbox.unsent()
    assert json.loads(last.report)["kind"] == Kind.RUN_SUCCEEDED
    assert last.result is not None
    assert json.loads(last.result)["result"] == {"x": 1}


def test_a_known_run_cannot_be_refused_any_more(admissions: Admissions, unbegun: Unbegun, outbox: Outbox) -> None:
    run_id = accept(admissions)
    unbegun.refuse(run_id, reason="malformed", detail="x")
    assert kinds(outbox) == [Kind.RUN_ACCEPTED]


def test_reports_are_numbered_without_gaps_even_when_a_transaction_fails(store: Store, outbox: Outbox) -> None:
    outbox.report(Kind.HOST_REGISTERED)

    def break_down() -> None:
        with store.transaction() as transaction:
            outbox.add(transaction, Kind.HOST_REGISTERED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_down()
    outbox.report(Kind.HOST_DEREGISTERED)
    assert [(out.epoch, out.seq) for out in outbox.unsent()] == [(1, 1), (1, 2)]


def test_numbers_go_on_after_everything_was_acknowledged(outbox: Outbox) -> None:
    outbox.report(Kind.HOST_REGISTERED)
    outbox.mark_sent(outbox.unsent())
    outbox.acknowledge(1, 1)
    outbox.report(Kind.HOST_DEREGISTERED)
    assert [out.seq for out in outbox.unsent()] == [2]


def test_a_new_session_numbers_anew_and_sends_what_the_former_left_first(store: Store, outbox: Outbox) -> None:
    outbox.report(Kind.HOST_REGISTERED)
    later = Outbox(store, host="h1", epoch=2, clock=BrokerClock())
    later.report(Kind.HOST_REGISTERED)
    assert [(out.epoch, out.seq) for out in later.unsent()] == [(1, 1), (2, 1)]
    assert later.news.is_set()
    assert store.recall("epoch") == "2"


def test_a_journal_of_another_host_is_refused(store: Store) -> None:
    store.close()
    with pytest.raises(errors.LocalFault, match="belongs to host 'h1'"):
        Store(store.path, host="h2")


def test_a_foreign_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE somebody_elses (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(errors.LocalFault, match="another program's file"):
        Store(path, host="h1")
    assert path.read_bytes()[100:] == before[100:]


def test_a_damaged_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database at all, but long enough to look" * 100)
    with pytest.raises(errors.LocalFault, match="move it away"):
        Store(path, host="h1")


def test_a_journal_of_another_version_is_refused(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(errors.LocalFault, match="version 99"):
        Store(store.path, host="h1")


def test_the_file_is_readable_by_its_owner_alone(store: Store) -> None:
    assert store.path.stat().st_mode & 0o077 == 0


def test_runs_that_had_not_begun_are_handed_back_and_accepted_anew(admissions: Admissions, journal: Journal) -> None:
    first, second = accept(admissions), accept(admissions)
    assert [run_id for run_id, _item in journal.waiting()] == [second, first]
    journal.disown(first)
    assert [run_id for run_id, _item in journal.waiting()] == [second]
    envelope = enveloped()
    assert admissions.accept(first, task="fleet.host.ping", envelope=envelope, item="{}").admission is Admission.DUE


def test_a_run_that_has_begun_does_not_wait_to_be_handed_back(
    admissions: Admissions, journal: Journal, endings: Endings
) -> None:
    claim = journal.claim(accept(admissions), durable=False)
    assert journal.waiting() == []
    assert journal.interrupted() == [claim]
    assert claim is not None
    endings.fail(claim, kind="interrupted", message="x", duration_seconds=0.0)
    assert journal.interrupted() == []


def test_an_acknowledgement_of_one_session_lets_go_of_no_other_ones_reports(store: Store, outbox: Outbox) -> None:
    outbox.report(Kind.HOST_REGISTERED)
    later = Outbox(store, host="h1", epoch=2, clock=BrokerClock())
    later.report(Kind.HOST_REGISTERED)
    later.acknowledge(2, 1)
    assert [(out.epoch, out.seq) for out in later.unsent()] == [(1, 1)]


def test_a_transaction_that_cannot_be_committed_leaves_the_journal_usable(store: Store, outbox: Outbox) -> None:
    with store.transaction() as transaction:
        transaction.execute("CREATE TABLE child (x REFERENCES meta DEFERRABLE INITIALLY DEFERRED)")
    store._connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as transaction:
        transaction.execute("INSERT INTO child VALUES ('nobody')")  # found out by COMMIT, as a full disk may be
    outbox.report(Kind.HOST_REGISTERED)
    assert kinds(outbox) == [Kind.HOST_REGISTERED]


def test_a_run_that_waits_for_its_time_is_given_out_when_it_has_come(session: Session, time: BrokerTime) -> None:
    run_id = session.accept(not_before=time.at + 30)
    assert session.journal.due(10) == []
    time.passes(31)
    assert [waiting for waiting, _item in session.journal.due(10)] == [run_id]


def test_what_is_in_hand_takes_no_place_among_what_is_due(session: Session) -> None:
    runs = [session.accept() for _ in range(5)]
    assert [run_id for run_id, _item in session.journal.due(2, besides=runs[:2])] == runs[2:4]


def test_a_run_that_may_be_repeated_is_begun_with_its_acceptance_unless_it_has_to_wait(
    session: Session, time: BrokerTime
) -> None:
    run_id = names.new_run_id("h1")
    accepted = session.offer(run_id, begin=True)
    assert accepted.admission is Admission.BEGUN
    assert session.journal.interrupted() == [accepted.claim]
    assert session.kinds(run_id) == [Kind.RUN_ACCEPTED, Kind.RUN_STARTED]
    later = session.offer(names.new_run_id("h1"), begin=True, not_before=time.at + 30)
    assert (later.admission, later.claim) == (Admission.WAITS, None)


def test_a_run_that_was_cancelled_before_its_message_came_never_begins(session: Session) -> None:
    run_id = names.new_run_id("h1")
    assert session.unbegun.cancel(CancelRun(run=run_id, by="ann")) is False
    assert session.offer(run_id, begin=True).admission is Admission.CANCELLED
    assert session.journal.claim(run_id, durable=False) is None
    assert session.kinds(run_id) == [Kind.RUN_CANCELLED]
    assert session.reports(run_id)[0].data["begun"] is False


def test_a_cancelled_run_that_waits_never_begins_and_one_that_runs_is_told_of(session: Session) -> None:
    waiting, running = session.accept(), session.begun()
    assert session.unbegun.cancel(CancelRun(run=waiting, by="ann")) is False
    assert session.unbegun.cancel(CancelRun(run=running.run_id, by="ann")) is True
    assert session.journal.claim(waiting, durable=False) is None
    assert session.journal.interrupted() == [running]


def test_a_claim_is_taken_back_only_where_it_waited_for_a_message_that_has_not_left(session: Session) -> None:
    held, gone, not_held = session.accept(), session.accept(), session.accept()
    session.journal.claim(held, durable=True, held=True)
    session.journal.claim(gone, durable=True, held=True)
    session.journal.handed_over([gone])
    session.journal.claim(not_held, durable=True)
    begun = session.offer(names.new_run_id("h1"), begin=True).claim
    assert begun is not None
    runs = [held, gone, not_held, begun.run_id]
    assert [session.journal.unclaim(run_id) for run_id in runs] == [True, False, False, False]
    again = session.journal.claim(held, durable=True)
    assert again is not None
    assert again.attempt == 1


def test_what_was_handed_back_and_accepted_anew_belongs_to_a_newer_session_that_has_its_message(
    session: Session,
) -> None:
    claim = session.begun()
    session.endings.hand_back(claim, Interruption.STOPPED)
    session.accept(claim.run_id)
    assert [run_id for run_id, _item in session.journal.waiting(unsettled=True)] == [claim.run_id]
    session.journal.disown(claim.run_id)
    assert session.journal.claim(claim.run_id, durable=True) is None
    assert session.offer(claim.run_id).admission is Admission.DUE


def test_whoever_asks_again_later_is_told_once_more_how_the_run_ended(session: Session, time: BrokerTime) -> None:
    claim = session.begun()
    session.endings.succeed(claim, reply={"x": 1}, duration_seconds=0.1)
    session.accept(claim.run_id)  # at once, it is a copy and nothing else
    assert session.kinds().count(Kind.RUN_SUCCEEDED) == 1
    time.passes(90)
    for _ in range(5):
        session.accept(claim.run_id)
    assert session.kinds().count(Kind.RUN_SUCCEEDED) == 2
    assert session.reports()[-1].data == session.reports()[-2].data


def test_more_runs_than_a_report_holds_are_not_listed(session: Session) -> None:
    runs = {session.accept() for _ in range(3)}
    assert set(session.journal.unfinished(3) or ()) == runs
    assert session.journal.unfinished(2) is None


def test_a_row_whose_metadata_nobody_can_read_any_more_keeps_no_session_from_beginning(session: Session) -> None:
    claim = session.begun()
    deep: object = 1
    for _ in range(220):
        deep = {"a": deep}
    written = json.dumps({**claim.envelope.model_dump(mode="json"), "metadata": {"x": deep}})
    with session.store.transaction() as transaction:
        transaction.execute("UPDATE journal SET envelope = ?", (written,))
    [found] = session.journal.interrupted()
    assert found == claim
    assert session.journal.pushed_by(claim.run_id) == claim.envelope.submitted_by
