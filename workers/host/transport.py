"""The hand-off: a kombu channel that moves a message from the host's queue to its inbox in one command.

Stock kombu pops (BRPOP) and writes the message down elsewhere in a second round trip; a process or a link that dies in
between loses it. Here `BLMOVE queue inbox` keeps it in exactly one list at every moment. It leaves the inbox when the
journal has it (`workers.host.handover`); whatever a broken connection left there goes back to the queue before
consuming begins again (`reconcile`), and the journal recognises what it has seen.
"""

import itertools
from collections.abc import Callable
from queue import Empty
from time import monotonic
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import QoS

from fleet import canonical, logs
from fleet.broker import tls
from fleet.broker.channel import MAX_MESSAGE_BYTES, SharedClient
from workers.host.inboxes import put_back, restore
from workers.host.pulse import Pulse

log = logs.get(__name__)

#: The parts of a message that its signature covers.
_TAKEN = ("headers", "body", "content-type", "content-encoding")
#: Takes note of an item that is no message, and why; sees to it that it leaves the inbox.
OnMalformed = Callable[[bytes, str], None]


class GatedQoS(QoS):
    """Kombu's QoS, which also asks the worker."""

    def can_consume(self) -> bool:
        channel: Any = self.channel
        return bool(channel.takes_work()) and bool(super().can_consume())


class Channel(SharedClient, kombu_redis.Channel):
    """Kombu's Redis channel with the hand-off. It consumes one queue."""

    connection_class = tls.LoopbackConnection
    connection_class_ssl = tls.VerifiedConnection
    #: Acknowledging is the journal's business; kombu only counts what is in hand.
    ack_emulation = False
    QoS: Any = GatedQoS
    do_restore = False
    body_encoding: Any = None

    #: Transport options: keys of this session's inbox and of former sessions'; what is told of items that are no
    #: messages, and when the former inboxes are empty; and the client that empties inboxes (shared with the worker's
    #: other parts: connections are few).
    inbox: str
    former_inboxes: tuple[str, ...] = ()
    on_malformed: OnMalformed
    on_reconciled: Callable[[], None]
    #: whether the worker takes new work at the moment
    takes_work: Callable[[], bool]
    link: "redis.Redis"
    #: says user and password at each new connection
    login: "redis.CredentialProvider"
    pulse: Pulse

    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "inbox",
        "former_inboxes",
        "on_malformed",
        "on_reconciled",
        "takes_work",
        "link",
        "login",
        "pulse",
    )

    #: set by kombu's __init__
    connection_errors: tuple[type[Exception], ...]

    _tags = itertools.count(1)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's
        made: Any = super()
        found: dict[str, Any] = made._connparams(asynchronous=asynchronous)  # noqa: SLF001 - an override
        self._process_credential_provider(self.login, found)  # type: ignore[attr-defined]  # missing in the stubs
        return found

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str | None, **kwargs: Any) -> Any:  # noqa: FBT001 - kombu's
        self._queue, self._callback = queue, callback
        self.reconcile()
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def reconcile(self) -> None:
        """Put back into the queue, in order, what was handed over and never settled."""
        restore(self.link, self._queue, (self.inbox, *self.former_inboxes))
        self.on_reconciled()

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self.active_queues:
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(
            "BLMOVE", self._queue, self.inbox, "RIGHT", "LEFT", timeout or self.brpop_timeout
        )

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                item = self.client.parse_response(self.client.connection, "BLMOVE", **options)
            except self.connection_errors:
                self.client.connection.disconnect()  # the next poll connects anew
                raise
        finally:
            self._in_poll = None
        self.pulse.ask()
        self.pulse.hear()
        if item is None:
            raise Empty
        self._hand_over(item)
        return True

    def _hand_over(self, item: bytes) -> None:
        """Give one item to the consumer as a message; what cannot be one goes to `on_malformed`."""
        if not self.takes_work():  # asked for while work was still taken
            put_back(self.link, self._queue, self.inbox)
            return
        if len(item) > MAX_MESSAGE_BYTES:  # unread: as JSON it could take fifty times its size
            self.on_malformed(item, "too large to be read")
            return
        try:
            message = self._message(item)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            self.on_malformed(item, f"not a task message ({type(exc).__name__}: {exc})")
            return
        self._callback(message)

    def from_journal(self, item: str) -> Any:
        """Return a message of the journal in the form that a message of the queue has; the guard has seen it before."""
        return self._message(item.encode())

    def _message(self, item: bytes) -> Any:
        found = canonical.read(item)
        if found["headers"].get("compression"):  # kombu would unpack it, to any size, before anybody has looked
            raise ValueError("compressed")
        payload = {name: found.get(name) for name in _TAKEN}
        # the rest is not signed: who could write to the queue could change it
        payload["properties"] = {
            "delivery_tag": str(next(self._tags)),
            "delivery_info": {"exchange": "", "routing_key": self._queue},
            "correlation_id": found["headers"].get("id"),
        }
        message: Any = self.Message(payload, channel=self)
        message.item = item
        if message.errors:  # a body without UTF-8 form; Celery would drop it without a word
            raise message.errors[0][1]
        self.qos.append(message, message.delivery_tag)
        return message

    def close(self) -> None:
        """Close without waiting for the BLMOVE in flight: what it may have moved is found in the inbox next time."""
        if self._in_poll:
            self._in_poll = None
            self.client.connection.disconnect()
        super().close()


class Transport(kombu_redis.Transport):
    """Kombu's Redis transport with the hand-off channel."""

    Channel = Channel
