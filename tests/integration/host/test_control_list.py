"""The control list: every message is acted upon once, and none of them ends the reading."""

import json
from collections.abc import Mapping
from typing import Any

from fleet import names
from tests.services.broker import Broker
from tests.services.waiting import until
from workers.host.control import ControlList


def test_what_cannot_be_read_is_dropped_and_the_next_message_is_acted_upon(broker: Broker) -> None:
    heard: list[Mapping[str, Any]] = []
    with broker.connect() as client:
        for item in (b"\xff\xfe", b"[]", b'{"kind": "unknown"}', json.dumps({"kind": "hello"})):
            client.lpush(names.control("h1"), item)
        control = ControlList(client, {"hello": heard.append}, host="h1")
        control.start()
        until(lambda: heard, "the last message is acted upon")
        control.stop()
    assert control.stopped.is_set()
    assert heard == [{"kind": "hello"}]
