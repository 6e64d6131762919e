"""The backend through which callers read results.

Hosts write results through their outbox, in Celery's form and under Celery's key, so `AsyncResult.get()` and groups
work as ever. Stock Celery rebuilds a failed task's exception from the class that the result names; whoever can write a
result could make the caller raise anything, `SystemExit` included. Here a failure is data, and becomes one of Fleet's
own errors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery.backends.redis import RedisBackend

from fleet import errors

#: How long a result can be fetched, in seconds.
RESULT_TTL_SECONDS = 24 * 3600


def success_meta(run_id: str, reply: dict[str, Any], *, date_done: str) -> dict[str, Any]:
    """Return a result in Celery's form (`celery.backends.base.Backend._get_result_meta`)."""
    return _meta(run_id, status="SUCCESS", result=reply, date_done=date_done)


def failure_meta(run_id: str, *, state: str, kind: str, message: str, date_done: str) -> dict[str, Any]:
    """Return the result of a run that ended in any other state than `succeeded`."""
    error = {"state": state, "kind": kind, "message": message}
    return _meta(run_id, status="FAILURE", result=error, date_done=date_done)


def _meta(run_id: str, *, status: str, result: dict[str, Any], date_done: str) -> dict[str, Any]:
    return {
        "status": status,
        "result": result,
        "traceback": None,
        "children": [],
        "date_done": date_done,
        "task_id": run_id,
    }


def error_from(data: object) -> errors.FleetError:
    """Turn the `result` of a failure into the error that `.get()` raises; never fails itself."""
    fields = data if isinstance(data, dict) else {}
    kind, message = str(fields.get("kind", "unreadable")), str(fields.get("message", "the result cannot be read"))
    match fields.get("state"):
        case "rejected":
            return errors.TaskRejected(kind, message)
        case "expired":
            return errors.TaskExpired(message)
        case "cancelled":
            return errors.TaskCancelled(message, kind=kind)
        case "unknown":
            return errors.OutcomeUnknown(message, kind=kind)
        case _:
            return errors.TaskFailed(message, kind=kind)


@contextmanager
def awaiting() -> Iterator[None]:
    """Turn what Celery raises when the broker goes away during a wait into `errors.BrokerUnavailable`."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, RuntimeError) as exc:
        # After 20 tries Celery gives up with a RuntimeError; the broker's own error is its cause.
        cause = exc.__cause__ if isinstance(exc, RuntimeError) else exc
        if not isinstance(cause, redis.RedisError):
            raise
        raise errors.BrokerUnavailable(
            f"the broker went away while results were awaited ({cause})",
            remedy="the task goes on; `fleet task wait` waits for it again",
        ) from exc


class Backend(RedisBackend):
    """Celery's Redis backend, reading failures as data."""

    def exception_to_python(self, exc: object) -> Exception:
        if isinstance(exc, Exception):
            return exc
        return error_from(exc)

    def remove_pending_result(self, result: Any) -> Any:
        """Unsubscribe from a result, as Celery does here, unless the subscription has ended: that would connect anew.

        The garbage collector may take a result after the connection that it was awaited on.
        """
        consumer: Any = self.result_consumer  # type: ignore[attr-defined]  # missing in the stubs
        pubsub = consumer._pubsub  # noqa: SLF001 - Celery has no other word for it
        if pubsub is None or pubsub.connection is None:
            consumer.subscribed_to.discard(self.get_key_for_task(result.id))
        return super().remove_pending_result(result)

    def close(self) -> None:
        """Let go of the connections of the calling thread's subscription."""
        consumer: Any = self.result_consumer  # type: ignore[attr-defined]  # missing in the stubs
        consumer.stop()
