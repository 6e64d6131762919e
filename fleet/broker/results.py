"""The backend through which callers read results.

Hosts write results through their outbox, in Celery's form and under Celery's key, so `AsyncResult.get()` and groups
work as ever. Stock Celery rebuilds a failed task's exception from the class that the result names; whoever can write a
result could make the caller raise anything, `SystemExit` included. Here a failure is data, and becomes one of Fleet's
own errors. A result counts only with its host's signature, or the fleet's: nobody else can say how a run ended.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import redis
from celery import states
from celery.backends import redis as celery_redis
from celery.backends.redis import RedisBackend
from kombu.exceptions import DecodeError

from fleet import errors, logs
from fleet.broker import tls

log = logs.get(__name__)

_LOOK = "`fleet task show` has what the host reported"
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


class _LetsGo(threading.local):
    #: whether this thread is unsubscribing from results that nobody holds any more
    value = False


_ResultConsumer: Any = celery_redis.ResultConsumer  # type: ignore[attr-defined]  # missing in the stubs


class Consumer(_ResultConsumer):  # type: ignore[misc]  # as above
    """Celery's consumer of results that are published. What speaks of another run than its channel's is dropped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decode_result = self._read
        self._lets_go = _LetsGo()

    def _flush_pending_unsubscribe(self) -> None:
        """Unsubscribe from results that nobody holds any more, as Celery does here, and connect to nothing for it.

        It is the garbage collector who lets go of most results, anywhere in the program: Celery would look for a
        broker that is away for twenty seconds there, and raise what nobody can catch.
        """
        if self._lock_depth.value:
            return  # in the midst of something else: it comes by here at its end
        before, self._lets_go.value = self._lets_go.value, True
        try:
            if self._has_lost() and self._pubsub_lock.acquire(blocking=False):
                try:
                    self._forget_pending()
                finally:
                    self._pubsub_lock.release()
            super()._flush_pending_unsubscribe()
        finally:
            self._lets_go.value = before

    @contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        if not self._lets_go.value:
            with super().reconnect_on_error():
                yield
            return
        try:
            yield
        except self._connection_errors:
            # The next who waits finds the connection lost, and connects anew.
            pubsub = self._pubsub
            for channel in pubsub.pending_unsubscribe_channels:  # nobody has answered, nobody will
                pubsub.channels.pop(channel, None)

    def _reconnect_pubsub(self) -> None:
        """Connect anew, having closed what there was: Celery leaves that to the garbage collector."""
        with self._locked():
            if self._pubsub is not None:
                self._pubsub.close()
            self.backend.client.connection_pool.disconnect()
            super()._reconnect_pubsub()

    def _has_lost(self) -> bool:
        """Say whether the connection by which results are heard is away, or was never made."""
        connection = self._pubsub and self._pubsub.connection
        return connection is None or connection._sock is None  # noqa: SLF001 - redis-py has no other word for it

    def _forget_pending(self) -> None:
        """Drop what is to be unsubscribed from: a connection that is made anew has not subscribed to it."""
        channels = self._pubsub.channels if self._pubsub is not None else {}
        while self._pending_unsubscribe:
            key = self._pending_unsubscribe.pop()
            self.subscribed_to.discard(key)
            channels.pop(_bytes(key), None)

    def on_state_change(self, meta: Any, message: Any) -> None:
        run_id = meta.get("task_id", "")
        if meta["status"] in states.UNREADY_STATES:
            return  # nothing has come yet
        if run_id and (message is None or _text(message["channel"]) == _text(self._key(run_id))):
            super().on_state_change(meta, message)
        else:
            log.warning("result.misplaced", run=run_id[:100], next="it is dropped")

    def _key(self, run_id: str) -> str | bytes:
        backend: Any = self.backend
        key: str | bytes = backend.get_key_for_task(run_id)
        return key

    def _read(self, payload: Any) -> Any:
        backend: Any = self.backend
        try:
            return backend.decode_result(payload)
        except errors.ResultForged:
            return {"task_id": "", "status": states.PENDING, "result": None}


class Backend(RedisBackend):
    """Celery's Redis backend, reading failures as data, and believing what is signed."""

    ResultConsumer = Consumer

    def decode_result(self, payload: Any) -> Any:
        """Return a result as Celery goes on with it; one that nobody has signed who may is a failure that says so.

        Raises `errors.ResultForged` for what is no result of any run.
        """
        try:
            meta = self.decode(payload)
            run_id, status = meta["task_id"], meta["status"]
        except (ValueError, TypeError, KeyError, RecursionError, DecodeError) as exc:
            raise errors.ResultForged("what lies there as a result cannot be read", remedy=_LOOK) from exc
        if not isinstance(run_id, str) or not isinstance(status, str):
            raise errors.ResultForged("what lies there as a result cannot be read", remedy=_LOOK)
        try:
            app: Any = self.app  # type: ignore[attr-defined]  # missing in the stubs; each thread has its own backend
            if app.check_result is None:
                raise errors.NotTrusted("there is nothing to check it by")
            app.check_result(meta, run_id)
        except errors.NotTrusted as exc:
            return _forged(run_id, exc.message)
        # of what the signature does not cover nothing is passed on
        return self.meta_from_decoded(_meta(run_id, status=status, result=meta["result"], date_done=meta["date_done"]))

    def _get_task_meta_for(self, task_id: str) -> Any:
        payload: Any = self.get(self.get_key_for_task(task_id))
        return self._of(task_id, payload) if payload else {"status": states.PENDING, "result": None}

    def _mget_to_results(self, values: Any, keys: Any, READY_STATES: Any = None) -> dict[str, Any]:  # noqa: N803 - Celery's
        """Return what lies under these runs' keys, as Celery does here; what is wrong with one harms no other."""
        return {
            _text(run_id): self._of(_text(run_id), found) for run_id, found in zip(keys, values, strict=True) if found
        }

    def _of(self, run_id: str, payload: Any) -> Any:
        """Return the result of that run in Celery's form, or a failure that says why it is none."""
        try:
            meta = self.decode_result(payload)
        except errors.ResultForged:
            return _forged(run_id, "it cannot be read")
        return meta if meta["task_id"] == run_id else _forged(run_id, "it is another run's")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        parameters: dict[str, Any] = self.connparams  # type: ignore[attr-defined]  # missing in the stubs
        chosen = parameters.get("connection_class", redis.Connection)
        parameters["connection_class"] = (
            tls.VerifiedConnection if issubclass(chosen, redis.SSLConnection) else tls.LoopbackConnection
        )

    def apply_chord(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse before anything is sent: a chord's body is pushed by the host that ends its header."""
        raise errors.UsageError(
            "chords cannot be used with hosts", remedy="collect the results of a group and push the next step"
        )

    set_chord_size = apply_chord

    def exception_to_python(self, exc: object) -> Exception:
        if isinstance(exc, Exception):
            return exc
        return error_from(exc)

    def close(self) -> None:
        """Let go of the connections of the calling thread's subscription; who waits afterwards makes new ones.

        Celery takes what it has subscribed to once for subscribed to, and would wait for ever.
        """
        consumer: Any = self.result_consumer  # type: ignore[attr-defined]  # missing in the stubs
        consumer.stop()
        consumer._pubsub = None  # noqa: SLF001 - as it was in the beginning
        consumer.subscribed_to.clear()
        self.client.connection_pool.disconnect()
        pending: Any = self._pending_results  # type: ignore[attr-defined]  # as above
        for waiting in pending:
            waiting.clear()


def _forged(run_id: str, problem: str) -> dict[str, Any]:
    log.warning("result.refused", run=run_id[:100], error=problem)
    error = errors.ResultForged(f"the result is not to be believed: {problem}", remedy=_LOOK)
    return {"task_id": run_id, "status": states.FAILURE, "result": error, "traceback": None, "children": []}


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
