"""The sender: reports reach the broker, whatever was in the way for a while."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet import names
from fleet.clock import BrokerClock
from fleet.contracts.contract import USUAL_REPLY_BYTES
from fleet.contracts.reports import Kind
from fleet.security import signing
from fleet.security.trust import Trust
from tests import factories
from tests.services.broker import Broker
from tests.services.proxy import Link
from tests.services.sessions import Session
from tests.services.waiting import until
from workers.control import reading
from workers.host.outbox import Outbox
from workers.host.own import Own
from workers.host.sender import Sender
from workers.host.store import Store


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return factories.own(tmp_path / "credential.json", "h1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "journal.db", host="h1")
    yield opened
    opened.close()


def test_a_journal_that_cannot_be_written_for_a_while_does_not_end_the_sending(
    broker: Broker, store: Store, own: Own
) -> None:
    outbox = Outbox(store, host="h1", epoch=1, clock=BrokerClock())
    with store.transaction() as transaction:  # as a full disk: what was sent cannot be marked
        transaction.execute("CREATE TRIGGER full BEFORE UPDATE ON outbox BEGIN SELECT RAISE(FAIL, 'full'); END")
    with broker.connect() as client:
        sender = Sender(outbox, client, own)
        sender.start()
        outbox.report(Kind.HOST_REGISTERED)
        until(lambda: client.llen(names.reports("h1")), "the report is sent")
        with store.transaction() as transaction:
            transaction.execute("DROP TRIGGER full")
        until(lambda: outbox.backlog() == 0, "the report is marked as sent")
        sender.stop()
        assert sender.stopped.is_set()


@pytest.fixture
def sender(session: Session, linked: Any, own: Own) -> Iterator[Sender]:
    """A sender on a link that can be cut."""
    made = Sender(session.outbox, linked, own)
    yield made
    made.stop()
    assert made.stopped.is_set()


class RoundTrips:
    """Counts how often reports came to the broker, by its own account."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._before = self.count()

    def count(self) -> int:
        return int(self._client.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0))

    def since(self) -> int:
        return self.count() - self._before


def received(client: Any) -> list[int]:
    """Return the numbers of the reports that the broker has, oldest first."""
    return [number for together in bundles(client) for number in together]


def bundles(client: Any) -> list[list[int]]:
    """Return the numbers of the reports that were signed together, oldest first."""
    items = reversed(client.lrange(names.reports("h1"), 0, -1))
    signed = [signing.check_reports(item.encode(), "h1", [factories.key("h1").public]) for item in items]
    return [[json.loads(report)["seq"] for report in reports] for reports in signed]


def test_steps_on_the_way_share_a_round_trip(
    session: Session, client: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.host.sender._GATHER_SECONDS", 1.0)  # more than a step may take here
    trips = RoundTrips(client)
    claims = [session.begun() for _ in range(10)]
    sender.start()
    for claim in claims:
        session.endings.progress(claim, step="half", percent=50.0)
    until(lambda: session.outbox.backlog() == 0, "everything is sent")
    assert received(client) == list(range(1, 31))
    assert trips.since() < 10


def test_a_result_is_sent_at_once_and_takes_the_steps_before_it_along(
    session: Session, client: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.host.sender._GATHER_SECONDS", 3600.0)
    claim = session.begun()
    sender.start()
    session.endings.succeed(claim, reply={"x": 1}, duration_seconds=0.1)
    until(lambda: session.outbox.backlog() == 0, "everything is sent")
    assert received(client) == [1, 2, 3]
    result = json.loads(client.get(names.result(claim.run_id)))
    assert result["result"] == {"x": 1}
    signing.check_result(result, claim.run_id, trust=Trust.in_keys([factories.key("fleet").public]))


def test_reports_are_signed_together_up_to_twenty_and_by_their_size(
    session: Session, client: Any, sender: Sender
) -> None:
    for _ in range(45):
        session.outbox.report(Kind.HOST_REGISTERED)
    sender.send(session.outbox.unsent())
    assert [len(together) for together in bundles(client)] == [20, 20, 5]
    client.flushall()
    largest = {"reply": "ä" * (USUAL_REPLY_BYTES // 2)}
    for _ in range(20):
        session.outbox.report(Kind.RUN_SUCCEEDED, largest)
    while reports := session.outbox.unsent():  # they are large, so not all at once
        assert len(reports) < 20
        sender.send(reports)
    assert received(client) == list(range(46, 66))
    assert max(map(len, client.lrange(names.reports("h1"), 0, -1))) < reading.LARGEST_ITEM


@pytest.mark.parametrize("worst", ['"', "ä", "\x01", "\U0001f600"])
def test_a_report_of_four_megabytes_fits_into_its_item(
    session: Session, client: Any, sender: Sender, worst: str
) -> None:
    written = len(json.dumps(worst, ensure_ascii=False).encode()) - 2
    session.outbox.report(Kind.INVENTORY_SYNCED, {"containers": worst * (4 * 1024 * 1024 // written)})
    sender.send(session.outbox.unsent())
    (item,) = client.lrange(names.reports("h1"), 0, -1)
    (found,) = reading.read(item.encode(), "h1", [factories.key("h1").public])
    assert found.reason == "data do not fit", "it is read, and found to be no list of containers"


def test_whoever_waits_for_a_result_is_told_when_it_is_sent(session: Session, client: Any, sender: Sender) -> None:
    claim = session.begun()
    with client.pubsub() as waiting:
        waiting.subscribe(names.result(claim.run_id))
        assert waiting.get_message(timeout=30)["type"] == "subscribe"
        session.endings.succeed(claim, reply={"x": 1}, duration_seconds=0.1)
        sender.start()
        told = until(lambda: waiting.get_message(timeout=1), "the result is published")
    assert json.loads(told["data"])["status"] == "SUCCESS"


def test_reports_that_came_during_an_outage_are_sent_in_their_order_when_it_is_over(
    session: Session, client: Any, link: Link, sender: Sender
) -> None:
    sender.start()
    session.outbox.report(Kind.HOST_REGISTERED)
    until(lambda: session.outbox.backlog() == 0, "the first is sent")
    link.cut()
    for _ in range(5):
        session.accept()
    link.mend()
    until(lambda: session.outbox.backlog() == 0, "all are sent")
    assert received(client) == [1, 2, 3, 4, 5, 6]


def test_reports_whose_arrival_was_not_confirmed_are_sent_again_and_none_is_left_out(
    session: Session, client: Any, link: Link, sender: Sender
) -> None:
    link.lose_next_answer_to(b"LPUSH")
    for _ in range(3):
        session.accept()
    sender.start()
    until(lambda: session.outbox.backlog() == 0, "all are sent")
    assert link.lost == 1
    assert received(client) == [1, 2, 3, 1, 2, 3]  # the control plane knows them by their numbers


def test_what_the_broker_lost_and_nobody_recorded_is_sent_again(
    session: Session, client: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.host.sender._ACKNOWLEDGED_WITHIN", 0.05)
    for _ in range(3):
        session.accept()
    sender.start()
    until(lambda: session.outbox.backlog() == 0, "all are sent")
    session.outbox.acknowledge(1, 1)
    client.flushall()
    until(lambda: received(client) == [2, 3], "what is not on record is sent again")


def test_what_still_lies_in_the_broker_is_not_sent_again(
    session: Session, client: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.host.sender._ACKNOWLEDGED_WITHIN", 0.01)
    session.accept()
    looks = lambda: int(client.info("commandstats").get("cmdstat_llen", {}).get("calls", 0))  # noqa: E731 - a question
    before = looks()
    sender.start()
    until(lambda: looks() >= before + 5, "it was looked at several times")
    assert received(client) == [1]


def test_nothing_is_lost_by_a_stop_that_comes_at_any_moment(
    session: Session, client: Any, linked: Any, own: Own
) -> None:
    stop_after = [0, 1, 5, 20, 60]
    for count in stop_after:
        sender = Sender(session.outbox, linked, own)
        sender.start()
        for _ in range(count):
            session.accept()
        sender.stop(timeout=timedelta(seconds=60))
        sender.stop()
        assert sender.stopped.is_set()
        assert session.outbox.backlog() == 0
    assert received(client) == list(range(1, sum(stop_after) + 1))


def test_a_stop_during_an_outage_comes_soon_and_leaves_the_reports_in_the_outbox(
    session: Session, client: Any, link: Link, sender: Sender, own: Own
) -> None:
    link.cut()
    sender.start()
    session.accept()
    sender.stop(timeout=timedelta(seconds=60))
    assert sender.stopped.is_set()
    assert session.outbox.backlog() == 1
    link.mend()
    later = Sender(session.outbox, client, own)
    later.start()
    later.stop(timeout=timedelta(seconds=60))
    assert received(client) == [1]
