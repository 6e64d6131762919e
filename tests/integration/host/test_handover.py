"""The hand-over: a message leaves the inbox once, and whoever it left begins its run, and nobody else."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from fleet import names
from fleet.contracts.control import CancelRun
from tests.services.proxy import Link
from tests.services.sessions import HOST, Session, item
from tests.services.waiting import until
from workers.host.handover import Handover, Superseded
from workers.host.inboxes import restore
from workers.host.strays import Strays

QUEUE, INBOX = names.queue(HOST), names.inbox(HOST, 1)

Make = Callable[[Any], Handover]


@pytest.fixture
def unusable() -> list[Exception]:
    """What the hand-over said of a journal that it could not use."""
    return []


@pytest.fixture
def make(session: Session, client: Any, unusable: list[Exception]) -> Iterator[Make]:
    """Make a hand-over of session 1, which ends with the test."""
    client.set(names.epoch(HOST), 1)
    made: list[Handover] = []

    def handover(its_client: Any) -> Handover:
        made.append(Handover(its_client, session.journal, host=HOST, epoch=1, on_unusable=unusable.append))
        return made[-1]

    yield handover
    for each in made:
        each.stop()
        assert each.stopped.is_set()


def deliver(session: Session, client: Any, run_id: str | None = None) -> str:
    """Put a run's message into the inbox, and the run into the journal."""
    run_id = session.accept(run_id)
    client.lpush(INBOX, item(run_id))
    return run_id


def claim(session: Session, handover: Handover, run_id: str) -> None:
    assert session.journal.claim(run_id, durable=True, held=handover.holds(run_id))


def has_left(session: Session, run_id: str) -> bool:
    return session.rows("handed_over", "run_id = ?", (run_id,)) == [(1,)]


def newer_session_takes_everything(client: Any) -> None:
    client.set(names.epoch(HOST), 2)
    while client.lmove(INBOX, QUEUE, "LEFT", "RIGHT"):
        pass


def test_a_message_is_removed_before_its_run_begins(session: Session, client: Any, make: Make) -> None:
    handover = make(client)
    other, run_id = deliver(session, client), deliver(session, client)
    handover.hold(run_id, item(run_id))
    claim(session, handover, run_id)
    assert not has_left(session, run_id)
    handover.secure(run_id)
    assert client.lrange(INBOX, 0, -1) == [item(other)]
    assert has_left(session, run_id)
    assert not session.journal.unclaim(run_id)  # whatever copy of the message a later session finds


def test_a_run_does_not_begin_where_a_newer_session_has_its_message(session: Session, client: Any, make: Make) -> None:
    handover = make(client)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    claim(session, handover, run_id)
    newer_session_takes_everything(client)
    with pytest.raises(Superseded):
        handover.secure(run_id)
    assert client.lrange(QUEUE, 0, -1) == [item(run_id)]


def test_a_message_that_the_consumer_has_put_back_leaves_the_queue_before_its_run_begins(
    session: Session, client: Any, make: Make
) -> None:
    """Else it would come again, as a message that somebody else has put there once more."""
    handover = make(client)
    run_id, other = deliver(session, client), deliver(session, client)
    handover.hold(run_id, item(run_id))
    claim(session, handover, run_id)
    restore(client, QUEUE, (INBOX,))  # as it has connected anew
    handover.secure(run_id)
    assert client.lrange(QUEUE, 0, -1) == [item(other)]
    assert has_left(session, run_id)
    assert not handover.has(item(run_id).encode())


def test_a_message_is_known_until_it_has_left(
    session: Session, client: Any, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    handover = make(client)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    claim(session, handover, run_id)
    known, remove = [], client.lrem

    def look_and_remove(*arguments: Any) -> Any:
        known.append(handover.has(item(run_id).encode()))
        return remove(*arguments)

    monkeypatch.setattr(client, "lrem", look_and_remove)
    handover.secure(run_id)
    assert known == [True]
    assert not handover.has(item(run_id).encode())


def test_what_is_settled_and_was_put_back_leaves_the_queue_but_for_a_message_that_is_held(
    session: Session, client: Any, make: Make
) -> None:
    handover = make(client)
    settled, held = deliver(session, client), deliver(session, client)
    handover.hold(held, item(held))
    restore(client, QUEUE, (INBOX,))
    handover.settle(item(held).encode(), run_id=held)  # a copy that came and is gone
    handover.settle(item(settled).encode(), run_id=settled)
    handover.start()
    until(lambda: has_left(session, settled), "it has left")
    assert client.lrange(QUEUE, 0, -1) == [item(held)]
    assert not has_left(session, held)


def test_a_run_begins_where_only_the_answer_of_the_broker_was_lost(
    session: Session, client: Any, link: Link, linked: Any, make: Make
) -> None:
    handover = make(linked)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    link.lose_next_answer_to(b"LREM")
    handover.secure(run_id)
    assert link.lost == 1
    assert client.llen(INBOX) == 0


def test_a_run_does_not_begin_where_the_answer_was_lost_and_a_newer_session_came(
    session: Session, client: Any, link: Link, linked: Any, make: Make
) -> None:
    handover = make(linked)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    link.lose_next_answer_to(b"LREM")
    client.set(names.epoch(HOST), 2)  # nobody can say who removed it
    with pytest.raises(Superseded):
        handover.secure(run_id)
    assert link.lost == 1


def test_a_run_waits_for_a_broker_that_is_away_and_begins_when_it_is_back(
    session: Session, client: Any, link: Link, linked: Any, make: Make
) -> None:
    handover = make(linked)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    link.cut()
    begun = threading.Event()

    def secure() -> None:
        handover.secure(run_id)
        begun.set()

    thread = threading.Thread(target=secure)
    thread.start()
    assert not begun.wait(0.3)
    link.mend()
    assert begun.wait(30)
    thread.join()
    assert client.llen(INBOX) == 0


def test_a_run_that_waits_for_the_broker_does_not_begin_when_the_session_ends(
    session: Session, client: Any, link: Link, linked: Any, make: Make
) -> None:
    handover = make(linked)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    link.cut()
    ended: list[Exception] = []

    def secure() -> None:
        try:
            handover.secure(run_id)
        except Superseded as exc:
            ended.append(exc)

    thread = threading.Thread(target=secure)
    thread.start()
    handover.stop()
    thread.join(30)
    assert len(ended) == 1
    assert client.lrange(INBOX, 0, -1) == [item(run_id)]


def test_messages_leave_in_the_background_after_they_are_safe(session: Session, client: Any, make: Make) -> None:
    handover = make(client)
    runs = [deliver(session, client) for _ in range(450)]
    for run_id in runs:
        handover.settle(item(run_id).encode(), run_id=run_id)
    assert client.llen(INBOX) == 450
    handover.start()
    until(lambda: client.llen(INBOX) == 0, "all messages have left")
    until(lambda: all(has_left(session, run_id) for run_id in runs), "the journal knows")


def test_no_message_leaves_that_the_disk_does_not_keep_and_somebody_is_told(
    session: Session, client: Any, make: Make, unusable: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", broken)
    handover = make(client)
    run_id = deliver(session, client)
    handover.start()
    handover.settle(item(run_id).encode(), run_id=run_id)
    until(lambda: unusable, "the disk is complained of")
    assert client.llen(INBOX) == 1


def test_after_an_outage_messages_leave_all_the_same(
    session: Session, client: Any, link: Link, linked: Any, make: Make
) -> None:
    handover = make(linked)
    runs = [deliver(session, client) for _ in range(3)]
    link.cut()
    handover.start()
    for run_id in runs:
        handover.settle(item(run_id).encode(), run_id=run_id)
    link.mend()
    until(lambda: client.llen(INBOX) == 0, "all messages have left")
    until(lambda: all(has_left(session, run_id) for run_id in runs), "the journal knows")


def test_messages_whose_removal_was_not_answered_are_removed_once(
    session: Session, client: Any, link: Link, linked: Any, make: Make
) -> None:
    handover = make(linked)
    run_id = deliver(session, client)
    link.lose_next_answer_to(b"LREM")
    handover.start()
    handover.settle(item(run_id).encode(), run_id=run_id)
    until(lambda: has_left(session, run_id), "the journal knows")
    assert link.lost == 1
    assert client.llen(INBOX) == 0


def test_a_copy_of_a_held_message_leaves_and_the_other_one_stays(session: Session, client: Any, make: Make) -> None:
    handover = make(client)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    deliver(session, client, run_id)
    handover.start()
    handover.settle(item(run_id).encode(), run_id=run_id)
    until(lambda: client.llen(INBOX) == 1, "the copy has left")
    handover.stop()
    assert not has_left(session, run_id)  # a newer session may still take it
    claim(session, handover, run_id)
    handover.secure(run_id)
    assert client.llen(INBOX) == 0


def test_the_message_of_a_run_that_was_cancelled_before_it_began_leaves(
    session: Session, client: Any, make: Make
) -> None:
    handover = make(client)
    run_id = deliver(session, client)
    handover.hold(run_id, item(run_id))
    session.unbegun.cancel(CancelRun(run=run_id, by="ann"))
    assert session.journal.claim(run_id, durable=True, held=handover.holds(run_id)) is None
    handover.start()
    handover.release(run_id)
    handover.release(run_id)
    until(lambda: client.llen(INBOX) == 0, "the message has left")
    assert not handover.holds(run_id)


def test_what_is_to_leave_when_the_session_ends_still_does(session: Session, client: Any, make: Make) -> None:
    handover = make(client)
    runs = [deliver(session, client) for _ in range(3)]
    handover.start()
    for run_id in runs:
        handover.settle(item(run_id).encode(), run_id=run_id)
    handover.stop()
    handover.stop()
    assert handover.stopped.is_set()
    assert client.llen(INBOX) == 0


def test_securing_a_run_that_is_not_held_asks_the_broker_nothing(session: Session, link: Link, linked: Any) -> None:
    link.cut()
    handover = Handover(linked, session.journal, host=HOST, epoch=1, on_unusable=lambda _exc: None)
    handover.secure(session.accept())
    handover.stop()
    assert handover.stopped.is_set()


def test_a_message_that_a_dead_connection_took_goes_back_into_the_queue_and_what_is_known_stays(
    client: "redis.Redis",
) -> None:
    inbox, queue = names.inbox(HOST, 1), names.queue(HOST)
    strays = Strays(client, host=HOST, inbox=inbox)
    client.lpush(inbox, "known", b"\xff stray")
    assert strays.look(lambda: {b"known"}) == 0, "it may have come this very moment"
    assert strays.look(lambda: {b"known"}) == 1
    assert client.execute_command("LRANGE", queue, 0, -1, NEVER_DECODE=True) == [b"\xff stray"]
    assert client.lrange(inbox, 0, -1) == ["known"]
