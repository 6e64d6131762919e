"""The control list: every message is acted upon once, and none of them ends the reading."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet import names
from fleet.contracts.control import CancelRun, InventoryRequested
from tests.services.broker import Broker
from tests.services.waiting import until
from workers.host.control import ControlList

CANCEL = CancelRun(run="h1:x", by="alice")


class Heard:
    """A control list of session 3, and what it was told."""

    def __init__(self, client: Any) -> None:
        self.messages: list[Any] = []
        self.newer: list[int] = []
        self.list = ControlList(
            client, {"run.cancel": self.messages.append}, host="h1", epoch=3, on_superseded=self.newer.append
        )


@pytest.fixture
def client(broker: Broker) -> Iterator[Any]:
    with broker.connect() as connected:
        yield connected


def test_what_cannot_be_read_is_dropped_and_the_next_message_is_acted_upon(client: Any) -> None:
    heard = Heard(client)
    nobody_handles = InventoryRequested().model_dump_json()
    for item in (b"\xff\xfe", b"[]", b'{"kind": "unknown"}', nobody_handles, CANCEL.model_dump_json()):
        client.lpush(names.control("h1"), item)
    heard.list.start()
    until(lambda: heard.messages, "the last message is acted upon")
    heard.list.stop()
    assert heard.list.stopped.is_set()
    assert heard.messages == [CANCEL]


def test_what_was_said_while_no_worker_was_there_is_acted_upon_in_its_order_before_the_work(client: Any) -> None:
    heard = Heard(client)
    said = [CancelRun(run=f"h1:{number}", by="alice") for number in range(450)]
    for message in said:
        client.lpush(names.control("h1"), message.model_dump_json())
    heard.list.catch_up()
    assert heard.messages == said
    assert client.llen(names.control("h1")) == 0


def test_a_newer_session_is_noticed_once_and_ends_the_reading(client: Any) -> None:
    heard = Heard(client)
    client.set(names.epoch("h1"), 3)
    heard.list.start()
    client.set(names.epoch("h1"), 4)
    assert heard.list.stopped.wait(5)
    assert heard.newer == [4]
