"""The channel that sends: a task message, signed, and the report of it, in one transaction.

A push is one MULTI: the message into the host's queue, `run.queued` (with that very message) into the principal's
reports, and a mark for the control plane. So there is no moment in which a message lies in a queue that the ledger
will never hear of, or the other way round.

Signing happens here, over the very bytes that are sent, and raises: an error in one of Celery's signals would be
logged, and the message would go out unsigned.

Kombu names a queue's bindings in keys that all hosts share; messages for one named queue need none, so none are made.
"""

import json
import threading
from typing import Any, Protocol

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

from fleet import errors, names
from fleet.broker import tls
from fleet.contracts import registry
from fleet.contracts.envelope import HEADER, Envelope
from fleet.contracts.reports import Kind, Queued, Report

#: A message must fit into every host's journal and into the ledger (numbers of ARCHITECTURE.md).
MAX_MESSAGE_BYTES = 256 * 1024


class Signs(Protocol):
    """What signs for the principal that pushes."""

    def sign_message(self, message: dict[str, Any]) -> None:
        """Sign a kombu message in place."""

    def report(self, sender: str, report: str) -> str:
        """Return a report as an item of the sender's list."""


class _Sent(threading.local):
    """What this thread pushed last; kombu hands nothing back from a publish."""

    #: the report, as it lies in the principal's list until the control plane has recorded it
    report: str = ""


sent = _Sent()


def queued_report(message: dict[str, Any], item: str) -> Report:
    """Build `run.queued` from a kombu message (`headers`, `body`) and its bytes in the queue.

    Raises `errors.UsageError` for a message without an envelope, which no host would accept.
    """
    headers = message["headers"]
    if HEADER not in headers:
        raise errors.UsageError(
            f"a message for task {headers.get('task')!r} without Fleet's envelope",
            remedy="push with fleet.tasks or Fleet.push, not with Celery's send_task",
        )
    envelope = Envelope.model_validate(headers[HEADER])
    _args, arguments, _embed = json.loads(message["body"])
    contract = registry.known().get(headers["task"])
    own_limit = contract.limit.total_seconds() if contract else None
    queued = Queued(
        host=envelope.host,
        task=headers["task"],
        arguments=arguments,
        description=envelope.description,
        metadata=envelope.metadata,
        submitted_by=envelope.submitted_by,
        submitted_at=envelope.submitted_at,
        not_after=envelope.not_after,
        not_before=envelope.not_before,
        limit_seconds=envelope.limits.hard_seconds if envelope.limits else own_limit,
        soft_limit_seconds=envelope.limits.soft_seconds if envelope.limits else None,
        max_retries=envelope.retry.max_retries,
        backoff_seconds=envelope.retry.backoff_seconds,
        backoff_max_seconds=envelope.retry.backoff_max_seconds,
        retry_of=envelope.retry_of,
        batch=envelope.batch,
        message=item,
    )
    return Report(
        sender=names.principal_sender(envelope.submitted_by),
        kind=Kind.RUN_QUEUED,
        run=headers["id"],
        at=envelope.submitted_at,
        data=queued.model_dump(mode="json"),
    )


class SharedClient:
    """A mixin of kombu channels that keeps one client for all commands; kombu makes a new one for each, which costs
    more than the command."""

    _shared: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's
        made: Any = super()
        if asynchronous:
            return made._create_client(asynchronous=True)  # noqa: SLF001 - a mixin of that class
        if self._shared is None:
            self._shared = made._create_client()  # noqa: SLF001 - as above
        return self._shared


class Channel(SharedClient, kombu_redis.Channel):
    """Kombu's Redis channel, with host queues sent in a transaction of our own."""

    connection_class = tls.LoopbackConnection
    connection_class_ssl = tls.VerifiedConnection
    #: The body is JSON already; base64 would hide it from people and make it a third larger.
    body_encoding: Any = None
    #: Transport option: without it nothing can be pushed to a host.
    signer: Signs | None = None

    from_transport_options = (*kombu_redis.Channel.from_transport_options, "signer")

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if names.host_of_queue(queue) is None:
            super()._put(queue, message, **kwargs)
            return
        if self.signer is None:
            raise errors.CredentialUnusable(
                "nothing is pushed without a principal's credential", remedy="push with fleet.tasks or Fleet.push"
            )
        message["headers"] = json.loads(dumps(message["headers"]))  # as the host will read them
        self.signer.sign_message(message)
        item = dumps(message)
        if len(item.encode()) > MAX_MESSAGE_BYTES:
            raise errors.UsageError(
                f"{message['headers'].get('task')}: the message is {len(item.encode()):,} bytes",
                remedy=f"a message may have {MAX_MESSAGE_BYTES:,}; pass large data by reference",
            )
        report = queued_report(message, item)
        with self.conn_or_acquire() as client, client.pipeline(transaction=True) as pipe:
            pipe.lpush(queue, item)
            sent.report = self.signer.report(report.sender, report.model_dump_json())
            pipe.lpush(names.reports(report.sender), sent.report)
            pipe.sadd(names.REPORTS_DIRTY, report.sender)
            pipe.execute()

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:  # noqa: FBT001, FBT002 - kombu's
        if names.host_of_queue(queue) is None:
            super()._new_queue(queue, auto_delete=auto_delete, **kwargs)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if names.host_of_queue(queue) is None:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]  # missing in the stubs


class Transport(kombu_redis.Transport):
    """Kombu's Redis transport with the channel that sends."""

    Channel = Channel
