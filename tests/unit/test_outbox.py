"""The outbox: reports in their order, until somebody has recorded them."""

from fleet.contracts.reports import Kind
from tests.services.sessions import Session


def report(session: Session, count: int) -> None:
    for _ in range(count):
        session.outbox.report(Kind.HOST_REGISTERED)


def unsent(session: Session) -> list[tuple[int, int]]:
    return [(each.epoch, each.seq) for each in session.outbox.unsent()]


def test_reports_are_given_out_oldest_first_a_part_at_a_time(session: Session) -> None:
    report(session, 5)
    assert [each.seq for each in session.outbox.unsent(limit=2)] == [1, 2]
    session.outbox.mark_sent(session.outbox.unsent(limit=2))
    assert unsent(session) == [(1, 3), (1, 4), (1, 5)]


def test_what_is_sent_and_not_recorded_is_kept_and_counted(session: Session) -> None:
    report(session, 3)
    session.outbox.mark_sent(session.outbox.unsent(limit=2))
    assert (session.outbox.backlog(), session.outbox.unacknowledged()) == (1, 2)
    session.outbox.acknowledge(1, 1)
    assert (session.outbox.backlog(), session.outbox.unacknowledged()) == (1, 1)


def test_an_acknowledgement_that_comes_late_or_twice_or_for_nothing_does_no_harm(session: Session) -> None:
    report(session, 3)
    session.outbox.mark_sent(session.outbox.unsent())
    for seq in (2, 2, 1, 0):
        session.outbox.acknowledge(1, seq)
    session.outbox.acknowledge(9, 99)
    assert [each.seq for each in session.reports()] == [3]
    report(session, 1)
    assert [each.seq for each in session.reports()] == [3, 4]


def test_what_the_control_plane_has_and_the_sender_has_not_marked_yet_is_let_go(session: Session) -> None:
    report(session, 2)
    taken = session.outbox.unsent()
    session.outbox.acknowledge(1, 2)  # quicker than the answer of the broker
    session.outbox.mark_sent(taken)
    assert session.reports() == []


def test_everything_that_nobody_has_recorded_is_sent_again_in_its_order(session: Session) -> None:
    report(session, 2)
    later = session.next()
    report(later, 2)
    later.outbox.mark_sent(later.outbox.unsent())
    later.outbox.acknowledge(2, 1)
    later.outbox.news.clear()
    later.outbox.send_again()
    assert unsent(later) == [(1, 1), (1, 2), (2, 2)]
    assert later.outbox.news.is_set()
    later.outbox.mark_sent(later.outbox.unsent())
    later.close()


def test_nobody_is_woken_to_send_nothing_again(session: Session) -> None:
    session.outbox.news.clear()
    session.outbox.send_again()
    assert not session.outbox.news.is_set()


def test_the_sender_is_woken_for_every_report_and_hurried_for_a_result(session: Session) -> None:
    session.outbox.news.clear()
    claim = session.begun()
    assert session.outbox.news.is_set()
    assert not session.outbox.urgent.is_set()
    session.outbox.news.clear()
    session.endings.succeed(claim, reply={}, duration_seconds=0.1)
    assert session.outbox.news.is_set()
    assert session.outbox.urgent.is_set()


def test_a_report_of_a_session_that_goes_on_does_not_overtake_what_the_former_one_left(session: Session) -> None:
    report(session, 3)
    session.outbox.mark_sent(session.outbox.unsent(limit=1))
    later = session.next()
    report(later, 1)
    assert unsent(later) == [(1, 2), (1, 3), (2, 1)]
    later.close()
