"""Watchers: whoever listens on `fleet:watch` hears every audit event after it is committed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from fleet import audit, names


def tell(client: "redis.Redis", events: Sequence[Mapping[str, Any]]) -> None:
    """Publish rows of the audit (as `audit.record_many` returns them).

    Where nobody watches, nothing is sent: that saves a sixth of the work. Who subscribes a moment later finds these
    events in the database, for they were committed before the question.
    """
    if not events:
        return
    subscribers: Any = client.pubsub_numsub(names.WATCH)
    if not subscribers[0][1]:
        return
    with client.pipeline(transaction=False) as pipeline:
        for event in events:
            pipeline.publish(names.WATCH, json.dumps(audit.row_to_wire(event)))
        pipeline.execute()
