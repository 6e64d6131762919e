"""The sender: reports reach the broker, whatever was in the way for a while."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import names
from fleet.clock import BrokerClock
from fleet.contracts.reports import Kind
from tests.services.broker import Broker
from tests.services.waiting import until
from workers.host.outbox import Outbox
from workers.host.sender import Sender
from workers.host.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "journal.db", host="h1")
    yield opened
    opened.close()


def test_a_journal_that_cannot_be_written_for_a_while_does_not_end_the_sending(broker: Broker, store: Store) -> None:
    outbox = Outbox(store, host="h1", epoch=1, clock=BrokerClock())
    with store.transaction() as transaction:  # as a full disk: what was sent cannot be marked
        transaction.execute("CREATE TRIGGER full BEFORE UPDATE ON outbox BEGIN SELECT RAISE(FAIL, 'full'); END")
    with broker.connect() as client:
        sender = Sender(outbox, client, host="h1")
        sender.start()
        outbox.report(Kind.HOST_REGISTERED)
        until(lambda: client.llen(names.reports("h1")), "the report is sent")
        with store.transaction() as transaction:
            transaction.execute("DROP TRIGGER full")
        until(lambda: outbox.backlog() == 0, "the report is marked as sent")
        sender.stop()
        assert sender.stopped.is_set()
