"""Watching: what the control plane publishes as it records it. A hint, which may be missed; the audit counts."""

import json
from collections.abc import Iterator
from typing import Any


class Watch:
    """A subscription to the audit events that the control plane publishes as it records them."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    def events(self, *, timeout: float) -> Iterator[dict[str, Any]]:
        """Yield events (see `fleet.audit`) until none has come for `timeout` seconds."""
        while message := self._pubsub.get_message(timeout=timeout):
            yield json.loads(message["data"])
