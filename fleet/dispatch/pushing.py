"""Pushing: a contract as a Celery task of the caller's side, and its signatures for groups."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import kombu
from celery import Celery, Task
from celery.canvas import Signature

from fleet import errors, names
from fleet.broker import channel
from fleet.contracts import AnyContract
from fleet.contracts.envelope import HEADER
from fleet.dispatch.options import NAMES, Options
from fleet.dispatch.result import RunResult

if TYPE_CHECKING:
    from fleet.dispatch.dispatcher import Dispatcher


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
    "queue": "name the host with .on(host)",
    "exchange": "name the host with .on(host)",
    "routing_key": "name the host with .on(host)",
}
#: Options that Celery's own callers always add, and that mean nothing here.
_PASSED_OVER = frozenset({"ignore_result", "headers", "publisher", "shadow"})


class ContractTask(Task):  # type: ignore[type-arg]
    """A contract as a Celery task of the caller's side: it can be pushed, and never run here."""

    typing = False  # the contract checks arguments, and names the field

    def __init__(self, contract: AnyContract, dispatcher: "Dispatcher") -> None:
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
        **options: Any,
    ) -> RunResult:
        """Push to one host and return the result to come.

        Options are those of `fleet.dispatch.Options`: among them `expires`, `countdown` or `eta`, `time_limit` and
        `soft_time_limit`, `max_retries` with `retry_backoff`, by the broker's clock, and `offline`. Raises
        `errors.InvalidArguments`, `errors.UsageError`, `errors.HostNotConnected`, `errors.QueueFull`,
        `errors.BrokerUnavailable`; nothing is sent in any of these cases.

        The result comes back when the broker has the task. Until the control plane has recorded it too, a fraction of a
        second later, a broker that loses its disk loses the task.
        """
        if host is None:
            raise errors.UsageError(f"{self.name}: no host was named", remedy="push with .on(host)")
        if args:
            raise errors.UsageError(
                f"{self.name}: positional arguments", remedy=f"name them: {self.contract.signature()}"
            )
        self._check_options(options)
        chosen = {name: value for name, value in options.items() if name in NAMES and value is not None}
        handed_on = {name: value for name, value in options.items() if name in _HANDED_ON}
        return self.push(kwargs or {}, host=host, options=Options(**chosen), task_id=task_id, **handed_on)

    def push(
        self,
        arguments: Mapping[str, Any],
        *,
        host: str,
        options: Options,
        task_id: str | None = None,
        **handed_on: Any,
    ) -> RunResult:
        """Push to one host, see `apply_async`; `handed_on` are options of Celery's `send_task`."""
        checked = self.contract.parse(arguments).model_dump(mode="json", exclude_unset=True)
        run_id = task_id or names.new_run_id(host)
        if names.host_of_run(run_id) != host:
            raise errors.InvalidValue(
                field="task_id",
                value=run_id,
                problem=f"is not one of host {host!r}",
                remedy=f"it begins with '{host}:'",
            )
        fit = self.dispatcher.require_host(host, self.contract, queues=options.offline == "queue")
        envelope = options.envelope(
            host=fit.host, principal=self.dispatcher.principal, contract=self.contract, now=fit.now
        )
        with self.dispatcher.translated():
            send: Any = self.app.send_task  # the stubs know queues by name only
            result: RunResult = send(
                self.name,
                (),
                checked,
                task_id=run_id,
                queue=kombu.Queue(names.queue(host), kombu.Exchange(""), names.queue(host), no_declare=True),
                headers={HEADER: envelope.model_dump(mode="json")},
                result_cls=self.AsyncResult,
                ignore_result=False,
                task_type=self,
                **handed_on,
            )
        result.report = channel.sent.report
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> RunResult:  # noqa: N802 - Celery's name
        return RunResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **kwargs)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if value is None or name in _HANDED_ON or name in NAMES or name in _PASSED_OVER:
                continue
            if name in _REFUSED:
                raise errors.UsageError(f"{self.name}: {name} cannot be used with hosts", remedy=_REFUSED[name])
            known = sorted({*_HANDED_ON, *NAMES, "host", "task_id"})
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
