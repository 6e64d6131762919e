"""The client: pushes to one host, several, those with certain labels, or all, and waits for what comes of it.

    fleet = Fleet()
    batch = fleet.push("fleet.containers.restart", selector={"env": "prod"}, arguments={"container": "web"})
    for outcome in batch.wait(timeout=60):
        print(outcome.host, outcome.state)

It needs the broker only, never the database. Who is enrolled, and with which labels, it reads from the registry that
the control plane keeps in the broker.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, Self

import celery.exceptions
from celery.result import ResultSet

from fleet import errors, names, presence
from fleet import settings as settings_module
from fleet.broker.connection import connect, translated
from fleet.broker.results import awaiting
from fleet.contracts import AnyContract, registry
from fleet.dispatch import Dispatcher, RunResult
from fleet.settings import Settings

OfflinePolicy = Literal["fail", "skip", "queue"]


@dataclass(frozen=True)
class Target:
    """One host that a push is meant for, as the registry knows it."""

    host: str
    labels: Mapping[str, str]
    connected: bool


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    run_id: str
    host: str
    #: succeeded, failed, rejected or expired
    state: str
    #: the reply's fields; None unless succeeded
    reply: dict[str, Any] | None = None
    #: the error that `.get()` would raise; None if succeeded
    error: errors.FleetError | None = None


@dataclass(frozen=True)
class Batch:
    """The runs of one push."""

    task: str
    results: tuple[RunResult, ...]
    #: hosts left out because they are not connected (`offline="skip"`)
    skipped: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(result.id for result in self.results)

    def wait(self, *, timeout: float | None = None) -> Iterator[Outcome]:
        """Yield each run's outcome as it comes.

        Raises `errors.TimedOut` after `timeout` seconds, `errors.BrokerUnavailable`; the runs themselves go on.
        """
        # One connection hears the results of all pushes, so some may have come while others were awaited. Celery's own
        # wait for a set notices only what comes from now on, and would go on waiting when nothing is left to come.
        results: list[Any] = list(self.results)
        known = {result.id: result._cache for result in results if result._cache}  # noqa: SLF001 - as Celery does
        for run_id, meta in known.items():
            yield _outcome(run_id, meta)
        pending = [result for result in results if result.id not in known]
        waiting = {result.id for result in pending}
        if not pending:
            return
        try:
            # Before it listens, Celery looks whether results are there already, and sleeps for `interval` after it.
            with awaiting():
                for run_id, meta in ResultSet(pending, app=pending[0].app).iter_native(timeout=timeout, interval=0):
                    waiting.discard(run_id)
                    yield _outcome(run_id, meta)
                    if not waiting:
                        return
        except celery.exceptions.TimeoutError as exc:
            hosts = ", ".join(sorted(names.host_of_run(run_id) for run_id in waiting))
            raise errors.TimedOut(
                f"no result within {timeout:g} s from {hosts}", remedy="the task goes on; see `fleet task show`"
            ) from exc


def _outcome(run_id: str, meta: Mapping[str, Any]) -> Outcome:
    host = names.host_of_run(run_id)
    result = meta["result"]
    if meta["status"] == "SUCCESS":
        return Outcome(run_id, host, "succeeded", reply=result)
    error = result if isinstance(result, errors.FleetError) else errors.TaskFailed(str(result))
    states: dict[type, str] = {errors.TaskRejected: "rejected", errors.TaskExpired: "expired"}
    state = states.get(type(error), "failed")
    return Outcome(run_id, host, state, error=error)


class Fleet:
    """A connection to one fleet for one principal. Thread-safe; close it, or use it as a context manager."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Read the settings where none are given; raises `errors.SettingsInvalid` where no broker is known."""
        self.settings = settings or settings_module.load()

    @cached_property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if "dispatcher" in self.__dict__:
            self.dispatcher.close()

    def targets(
        self,
        *,
        on: str | Sequence[str] | None = None,
        selector: Mapping[str, str] | None = None,
        all_hosts: bool = False,
    ) -> list[Target]:
        """Return the hosts that a push with these words would be meant for, in order of their ids.

        Exactly one of `on` (host ids), `selector` (all these labels) and `all_hosts` is given, and it may not be
        empty. Raises `errors.UsageError`, `errors.HostNotEnrolled`, `errors.BrokerUnavailable`.
        """
        if sum((on is not None, selector is not None, all_hosts)) != 1:
            raise errors.UsageError("name hosts, or labels, or all hosts: exactly one of the three")
        enrolled = self._enrolled()
        if on is not None:
            wanted = [on] if isinstance(on, str) else list(dict.fromkeys(on))
            for host in wanted:
                names.host_id(host)
                if host not in enrolled:
                    raise errors.HostNotEnrolled(host, list(enrolled))
        elif selector is not None:
            if not selector:
                raise errors.UsageError("an empty selector", remedy="use --all (all_hosts=True) to mean every host")
            wanted = [h for h, labels in enrolled.items() if selector.items() <= labels.items()]
        else:
            wanted = list(enrolled)
        if not wanted:
            said = "no host is enrolled" if not selector else f"no host has the labels {_spell(selector)}"
            raise errors.Unreachable(said, remedy="`fleet host list` shows hosts and labels; nothing was pushed")
        wanted.sort()
        with translated(self.dispatcher.broker_url):
            connected = presence.connected(self.dispatcher.redis, wanted)
        return [Target(host, enrolled[host], host in connected) for host in wanted]

    def push(
        self,
        task: str | AnyContract,
        *,
        on: str | Sequence[str] | None = None,
        selector: Mapping[str, str] | None = None,
        all_hosts: bool = False,
        arguments: Mapping[str, Any] | None = None,
        offline: OfflinePolicy = "fail",
        expires: float | timedelta | datetime | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Batch:
        """Push a task to hosts; see `targets` for naming them.

        `offline` says what to do about a host that is not connected: with "fail" nothing is pushed to any host and
        `errors.HostNotConnected` is raised, "skip" leaves it out, "queue" queues for it (for a day unless `expires`
        says otherwise). Arguments are checked before anything is sent (`errors.InvalidArguments`). Where a host or the
        broker goes away in the middle, `errors.PartlyPushed` names the runs that were pushed.
        """
        contract = registry.get(task) if isinstance(task, str) else task
        contract.parse(arguments or {})
        targets = self.targets(on=on, selector=selector, all_hosts=all_hosts)
        absent = [target.host for target in targets if not target.connected]
        if absent and offline == "fail":
            raise errors.HostNotConnected(absent[0])
        batch_id = str(uuid.uuid4())
        task_handle = self.dispatcher.task(contract.name)
        skipped = absent if offline == "skip" else []
        chosen = [target.host for target in targets if target.host not in skipped]
        results: list[RunResult] = []
        for host in chosen:
            try:
                results.append(
                    task_handle.apply_async(
                        kwargs=arguments,
                        host=host,
                        expires=expires,
                        description=description,
                        metadata=metadata,
                        batch=batch_id,
                        offline="queue" if offline == "queue" else "fail",
                    )
                )
            except errors.HostNotConnected as exc:  # it was there a moment ago
                if offline != "skip":
                    raise _cut_short(results, chosen, exc) from exc
                skipped.append(host)
            except errors.FleetError as exc:
                raise _cut_short(results, chosen, exc) from exc
        return Batch(contract.name, tuple(results), tuple(skipped), batch_id)

    @contextmanager
    def watch(self) -> Iterator["Watch"]:
        """Listen to what the control plane records from now on."""
        client: Any = connect(self.dispatcher.broker_url, name="watch", retries=1)
        try:
            with translated(self.dispatcher.broker_url), client.pubsub(ignore_subscribe_messages=True) as pubsub:
                pubsub.subscribe(names.WATCH)
                pubsub.get_message(ignore_subscribe_messages=False, timeout=5)  # the subscription stands
                yield Watch(pubsub)
        finally:
            client.close()

    def _enrolled(self) -> dict[str, dict[str, str]]:
        """Return accepted hosts and their labels."""
        with translated(self.dispatcher.broker_url):
            records: Any = self.dispatcher.redis.hgetall(names.HOSTS)
        return {host: json.loads(record)["labels"] for host, record in records.items()}


def _cut_short(results: Sequence[RunResult], chosen: Sequence[str], cause: errors.FleetError) -> errors.FleetError:
    """Return what to raise where a push ends before its last host: the cause, or with it what was pushed until then."""
    if not results:
        return cause
    return errors.PartlyPushed(tuple(result.id for result in results), wanted=len(chosen), cause=cause)


class Watch:
    """A subscription to the audit events that the control plane publishes as it records them."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    def events(self, *, timeout: float) -> Iterator[dict[str, Any]]:
        """Yield events (see `fleet.audit`) until none has come for `timeout` seconds."""
        while message := self._pubsub.get_message(timeout=timeout):
            yield json.loads(message["data"])


def _spell(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in selector.items())
