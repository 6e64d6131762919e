"""Dispatch: turning one push into one message for one host, or into an error before anything is sent.

Everything that can be known to be wrong is checked here, where the caller can see it: the task, its arguments, the
host, Celery options that cannot mean anything to a host.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import kombu
import redis
from celery import Celery, Task
from celery.canvas import Signature
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from fleet import errors, names, redaction
from fleet.broker import app as broker_app
from fleet.broker.connection import connect, translated
from fleet.broker.results import RESULT_TTL_SECONDS, awaiting
from fleet.contracts import AnyContract, registry
from fleet.contracts.envelope import HEADER, Envelope
from fleet.settings import Settings

Offline = Literal["fail", "queue"]

#: How long a message waits for an offline host when the caller sets no expiry.
DEFAULT_QUEUE_EXPIRY = timedelta(days=1)

#: Celery's options that a push takes and hands on, beside Fleet's own.
_HANDED_ON = frozenset(
    {
        "producer",
        "group_id",
        "group_index",
        "root_id",
        "parent_id",
        "reply_to",
        "add_to_parent",
        "retry",
        "retry_policy",
    }
)
#: Options that would make a host push to another, or do what hosts decide; each with what to do instead.
_REFUSED = {
    "link": "wait for the result and push the next step",
    "link_error": "wait for the result and push the next step",
    "chain": "wait for each result and push the next step",
    "chord": "collect the results of a group and push the next step",
    "countdown": "push when it is time",
    "eta": "push when it is time",
    "queue": "name the host with .on(host)",
    "exchange": "name the host with .on(host)",
    "routing_key": "name the host with .on(host)",
}


class Dispatcher:
    """Sends pushes of one principal through one broker."""

    def __init__(self, settings: Settings) -> None:
        self.broker_url = settings.require_broker_url()
        self.principal = settings.resolved_principal
        self.redis = connect(self.broker_url, name=f"client-{self.principal}", connections=4, retries=1)
        self.app = broker_app.make(
            "fleet",
            broker_url=self.broker_url,
            transport="fleet.broker.channel:Transport",
            transport_options={"client_name": f"fleet-client-{self.principal}"},
            result_backend=f"fleet.broker.results:Backend+{self.broker_url}",
            result_expires=RESULT_TTL_SECONDS,
        )
        for contract in registry.known().values():
            self.app.register_task(ContractTask(contract, self))

    def task(self, name: str) -> "ContractTask":
        """Return the task of that contract; raises `errors.UnknownTask`."""
        task: Any = self.app.tasks[registry.get(name).name]
        return cast("ContractTask", task)

    def require_host(self, host: str, *, connected: bool) -> float:
        """Return the broker's time in unix seconds, having looked for the host there.

        Raises `errors.HostNotEnrolled` where no such host is known, `errors.HostNotConnected` where it has to be
        connected and is not.
        """
        with translated(self.broker_url), self.redis.pipeline(transaction=False) as pipe:
            pipe.exists(names.presence(host))
            pipe.hexists(names.HOSTS, host)
            pipe.time()
            is_connected, is_enrolled, (seconds, microseconds) = pipe.execute()
            if not is_enrolled:
                raise errors.HostNotEnrolled(host, self._enrolled())
        if connected and not is_connected:
            raise errors.HostNotConnected(host)
        return float(seconds + microseconds / 1e6)

    def _enrolled(self) -> list[str]:
        return [str(host) for host in self.redis.hkeys(names.HOSTS)]

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the errors of kombu and redis-py into Fleet's."""
        try:
            with translated(self.broker_url):
                yield
        except OperationalError as exc:
            raise errors.BrokerUnavailable(
                f"the broker at {redaction.url(self.broker_url)} cannot be reached ({exc})",
                remedy="is it running? `fleet up` starts one; FLEET_BROKER_URL says where it is",
            ) from exc

    def close(self) -> None:
        self.app.close()
        self.redis.close()


class RunResult(AsyncResult):  # type: ignore[type-arg]  # generic in the stubs only
    """Celery's result of one run; what it raises are Fleet's errors, and Celery's `TimeoutError`."""

    @property
    def host(self) -> str:
        return names.host_of_run(self.id)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the reply's fields, as Celery's `get` does; raises `errors.BrokerUnavailable` besides."""
        with awaiting():
            return super().get(*args, **kwargs)

    def __del__(self) -> None:
        """Unsubscribe, as Celery does here, unless the process ends or the broker has gone: then nobody listens."""
        if not sys.is_finalizing():
            with suppress(redis.RedisError, OSError):
                super().__del__()


class ContractTask(Task):  # type: ignore[type-arg]
    """A contract as a Celery task of the caller's side: it can be pushed, and never run here."""

    typing = False  # the contract checks arguments, and names the field

    def __init__(self, contract: AnyContract, dispatcher: Dispatcher) -> None:
        self.name = contract.name
        self.contract = contract
        self.dispatcher = dispatcher

    def run(self, *args: Any, **kwargs: Any) -> Any:
        raise errors.UsageError(f"{self.name} runs on hosts only", remedy="push it with .on(host).delay(…)")

    def apply_async(  # type: ignore[override]
        self,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        *,
        host: str | None = None,
        expires: float | timedelta | datetime | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        batch: str | None = None,
        offline: Offline = "fail",
        **options: Any,
    ) -> RunResult:
        """Push to one host and return the result to come.

        `expires` is seconds from now, a timedelta, or a moment; the host does not begin the run after it, by the
        broker's clock. Raises `errors.InvalidArguments`, `errors.UsageError`, `errors.HostNotConnected`,
        `errors.BrokerUnavailable`; nothing is sent in any of these cases.
        """
        if host is None:
            raise errors.UsageError(f"{self.name}: no host was named", remedy="push with .on(host)")
        arguments = self._arguments(args, kwargs)
        self._check_options(options)
        run_id = task_id or names.new_run_id(host)
        if names.host_of_run(run_id) != host:
            raise errors.InvalidValue(
                field="task_id",
                value=run_id,
                problem=f"is not one of host {host!r}",
                remedy=f"it begins with '{host}:'",
            )
        if offline == "queue" and expires is None:
            expires = DEFAULT_QUEUE_EXPIRY
        now = self.dispatcher.require_host(host, connected=offline != "queue")
        envelope = Envelope(
            host=host,
            submitted_by=self.dispatcher.principal,
            submitted_at=now,
            not_after=_not_after(expires, now=now),
            description=description,
            metadata=_checked(metadata),
            batch=batch,
        )
        handed_on = {name: value for name, value in options.items() if name in _HANDED_ON}
        with self.dispatcher.translated():
            send: Any = self.app.send_task  # the stubs know queues by name only
            result: RunResult = send(
                self.name,
                (),
                arguments,
                task_id=run_id,
                queue=kombu.Queue(names.queue(host), kombu.Exchange(""), names.queue(host), no_declare=True),
                headers={HEADER: envelope.model_dump(mode="json")},
                result_cls=self.AsyncResult,
                ignore_result=False,
                task_type=self,
                **handed_on,
            )
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> RunResult:  # noqa: N802 - Celery's name
        return RunResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **kwargs)

    def _arguments(self, args: Any, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        if args:
            raise errors.UsageError(
                f"{self.name}: positional arguments", remedy=f"name them: {self.contract.signature()}"
            )
        request = self.contract.parse(kwargs or {})
        arguments: dict[str, Any] = request.model_dump(mode="json", exclude_unset=True)
        return arguments

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if value is None or name in _HANDED_ON or name in ("ignore_result", "headers", "publisher", "shadow"):
                continue
            if name in _REFUSED:
                raise errors.UsageError(f"{self.name}: {name} cannot be used with hosts", remedy=_REFUSED[name])
            known = sorted({*_HANDED_ON, "host", "expires", "description", "metadata", "batch", "offline", "task_id"})
            hint = errors.did_you_mean(name, known)
            raise errors.UsageError(f"{self.name}: no option {name!r}", remedy=hint or f"there are {', '.join(known)}")


@Signature.register_type(name="fleet")
class RunSignature(Signature):
    """A signature whose run id names its host; Celery's own would make a bare UUID."""

    @classmethod
    def from_dict(cls, d: dict[str, Any], app: Celery | None = None) -> "RunSignature":
        signature: Any = cls(d, app=app)
        signature._app = app  # noqa: SLF001 - as Celery's own types do
        return cast("RunSignature", signature)

    def freeze(self, _id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return super().freeze(_id or names.new_run_id(self.options["host"]), *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self["subtask_type"] = "fleet"


def _checked(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata that can travel as JSON; raises `errors.InvalidValue` for what cannot."""
    try:
        json.dumps(dict(metadata or {}), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise errors.InvalidValue(
            field="metadata",
            value=metadata,
            problem=f"is not JSON ({exc})",
            remedy="use texts, numbers, lists, dicts",
        ) from exc
    return dict(metadata or {})


def _not_after(expires: float | timedelta | datetime | None, *, now: float) -> float | None:
    """Return the moment in unix seconds; `now` is the broker's time.

    Raises `errors.InvalidValue` for a moment that is over or has no time zone, and for what is no number.
    """
    if expires is None:
        return None
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise errors.InvalidValue(
                field="expires", value=expires, problem="has no time zone", remedy="use datetime.now(UTC) + …"
            )
        moment = expires.astimezone(UTC).timestamp()
    elif isinstance(expires, timedelta):
        moment = now + expires.total_seconds()
    else:
        moment = now + expires if isinstance(expires, int | float) else math.nan
    if not math.isfinite(moment):
        raise errors.InvalidValue(
            field="expires", value=expires, problem="is no time", remedy="give seconds, a timedelta, or a datetime"
        )
    if moment <= now:
        raise errors.InvalidValue(field="expires", value=expires, problem="is over already", remedy="give it some time")
    return moment
