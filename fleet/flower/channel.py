"""The channel that only listens: every host's event channel by one pattern, and nothing written to the broker.

Hosts publish events on `/h-X.celeryev/…`. Kombu subscribes to `<prefix>celeryev/*`; with the prefix `/h-*.` that is one
PSUBSCRIBE for all hosts, and kombu cuts a channel's name off at its first dot, which no host id contains.
"""

from typing import Any

from kombu.transport import redis as kombu_redis

from fleet import errors
from fleet.broker import tls


class Channel(kombu_redis.Channel):
    """Kombu's Redis channel without its writing half."""

    connection_class = tls.LoopbackConnection
    connection_class_ssl = tls.VerifiedConnection

    def _queue_bind(self, exchange: str, routing_key: str, _pattern: str, queue: str) -> None:
        # Kombu also notes the binding in a key that senders read; nobody sends to Flower's queue by name.
        self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))  # type: ignore[attr-defined]

    def _new_queue(self, queue: str, **_: Any) -> None:
        """Make nothing: what is subscribed to needs no list."""

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        """Delete nothing: nothing was made."""

    def _size(self, _queue: str) -> int:
        return 0

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        raise errors.UsageError(f"Flower may not write to {queue!r}", remedy="push with `fleet push-task`")

    def _put_fanout(self, exchange: str, _message: Any, _routing_key: str, **_: Any) -> None:
        raise errors.UsageError(f"Flower may not publish to {exchange!r}", remedy="push with `fleet push-task`")


class Transport(kombu_redis.Transport):
    """Kombu's Redis transport with the channel that only listens."""

    Channel = Channel
