"""What a joining host and Flower do with the broker, in small pieces, by the code that does it in their processes."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from celery.events import EventReceiver

from fleet import joining, names
from fleet.broker import connection
from fleet.contracts.enrollment import EnrollmentAnswer, SignedAnswer
from fleet.flower.app import _celery
from fleet.flower.queues import Queues
from fleet.security import sealing
from fleet.security.keys import Purpose, fingerprint
from fleet.tokens import Token
from tests import factories
from tests.hostile.stage import HOST, SECRET, TOKEN, Needs, Stage
from tests.services.waiting import until
from workers.control.enrollment import _opened


def join(stage: Stage) -> None:
    ring = factories.ring()
    stage.admin.set(names.TRUST, factories.statement())
    token = Token(TOKEN, SECRET, fingerprint(ring.newest.public), stage.broker.url).text()
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(joining.join, token, host=HOST, version="test", patience=timedelta(seconds=stage.patience))
        item: Any = until(lambda: joined.done() or stage.admin.rpop(names.ENROLL_REQUESTS), "a request")
        if item is not True:
            request = _opened(item.encode(), ring)
            answer = EnrollmentAnswer(
                request_id=request.request_id,
                outcome="accepted",
                host=HOST,
                credential=ring.issue(factories.identity(HOST, key=request.key)),
                trust=factories.statement(),
            ).model_dump_json()
            signed = SignedAnswer(text=answer, signature=ring.newest.sign(Purpose.ENROLLMENT, answer.encode()))
            sealed = sealing.seal(signed.model_dump_json().encode(), request.answer_to)
            stage.admin.lpush(names.enroll_reply(TOKEN, request.request_id), sealed)
        assert joined.result().host == HOST


JOINER_NEEDS: Needs = MappingProxyType(
    {
        "": {"+time": join, "+client|setname": join, "+client|setinfo": join},
        "fleet:trust": {"%R~fleet:trust": join, "+get": join},
        "fleet:enroll:requests": {"%W~fleet:enroll:requests": join, "+lpush": join},
        f"fleet:enroll:reply:{TOKEN}:*": {f"~fleet:enroll:reply:{TOKEN}:*": join, "+brpop": join},
    }
)


def check_the_broker(stage: Stage) -> None:
    assert connection.check(stage.client(), stage.address)


def listen(stage: Stage) -> None:
    """Hear one event, and end the subscription as Flower's thread does when an event cannot be understood."""
    heard: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event)
        raise RuntimeError("not understood")

    with ThreadPoolExecutor(1) as pool, _celery(stage.address).connection_for_read() as opened:
        receiver = EventReceiver(opened, handlers={"*": hear}, app=_celery(stage.address))
        listening = pool.submit(receiver.capture, limit=None, timeout=stage.patience, wakeup=False)
        until(lambda: stage.admin.pubsub_numpat() or listening.done(), "it listens")
        event = json.dumps({"type": "worker-heartbeat", "hostname": "h1@fleet", "timestamp": 1.0, "utcoffset": 0})
        body = {"body": event, "content-type": "application/json", "content-encoding": "utf-8", "headers": {}}
        delivery = {"exchange": "celeryev", "routing_key": "worker.heartbeat"}
        properties = {"delivery_tag": "1", "delivery_info": delivery, "delivery_mode": 1, "priority": 0}
        channel = f"{names.fanout_prefix(HOST)}celeryev/worker.heartbeat"
        stage.admin.publish(channel, json.dumps({**body, "properties": properties}))
        with pytest.raises(RuntimeError, match="not understood"):
            listening.result()
    assert heard


def show_how_long_queues_are(stage: Stage) -> None:
    stage.admin.lpush(names.queue(HOST), "message")
    assert asyncio.run(Queues(stage.address).queues([names.queue(HOST)])) == [
        {"name": names.queue(HOST), "messages": 1}
    ]


FLOWER_NEEDS: Needs = MappingProxyType(
    {
        "": {
            "+ping": listen,
            "+info": check_the_broker,
            "+client|setname": check_the_broker,
            "+client|setinfo": check_the_broker,
        },
        "fleet:h:*:q": {"%R~fleet:h:*:q": show_how_long_queues_are, "+llen": show_how_long_queues_are},
        "&/h-*.celeryev/*": {"&/h-*.celeryev/*": listen, "+psubscribe": listen, "+punsubscribe": listen},
    }
)
