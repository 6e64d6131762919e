"""The door to a fleet: naming hosts, pushing to them, cancelling, and watching what is recorded."""

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from fleet import configuration, errors, names, presence
from fleet.broker.connection import connect, translated
from fleet.client.batch import Batch
from fleet.client.output import Output
from fleet.client.watching import Watch
from fleet.contracts import AnyContract, registry
from fleet.contracts.credentials import PrincipalCredential
from fleet.dispatch import Dispatcher, Duration, Member, Moment, Options, RunResult, membership
from fleet.settings import Settings

OfflinePolicy = Literal["fail", "skip", "queue"]
#: How often to look whether a push has been recorded.
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Target:
    """One host that a push is meant for, as the registry knows it."""

    host: str
    labels: Mapping[str, str]
    connected: bool
    #: one of `contracts.hosts.Availability`
    availability: str
    #: messages that wait in its queue
    waiting: int

    def obstacle(self, *, queues: bool = False) -> errors.Unreachable | None:
        """Return why nothing can be pushed to it now, or None; `queues` says that it is to wait for the host."""
        return membership.obstacle(
            self.host,
            availability=self.availability,
            connected=self.connected,
            waiting=self.waiting,
            queues=queues,
        )


class Fleet:
    """A connection to one fleet for one principal. Thread-safe; close it, or use it as a context manager."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        credential: PrincipalCredential | None = None,
        in_sight_only: bool = False,
    ) -> None:
        """Read the settings where none are given; raises `errors.SettingsInvalid` where no broker is known.

        `credential` is who pushes; without it, that is read from the principal's file when it is first needed.
        `in_sight_only` is for who asks on behalf of somebody that cannot read the registry: hosts that the principal's
        selectors do not name are answered for like such as do not exist, are not suggested, and are not among all.
        """
        self.settings = settings or configuration.load()
        self._credential, self._in_sight_only = credential, in_sight_only
        self._lock = threading.Lock()
        self._dispatcher: Dispatcher | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """What pushes; made once, when it is first needed."""
        with self._lock:
            if self._dispatcher is None:
                self._dispatcher = Dispatcher(self.settings, held=self._credential, in_sight_only=self._in_sight_only)
            return self._dispatcher

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections; what is used afterwards makes new ones."""
        with self._lock:
            dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            dispatcher.close()

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
        enrolled = self.dispatcher.members()
        if on is not None:
            wanted = [on] if isinstance(on, str) else list(dict.fromkeys(on))
            for host in wanted:
                names.host_id(host)
                if host not in enrolled:
                    raise errors.HostNotEnrolled(host, list(enrolled))
        elif selector is not None:
            if not selector:
                raise errors.UsageError("an empty selector", remedy="use --all (all_hosts=True) to mean every host")
            wanted = [h for h, member in enrolled.items() if selector.items() <= member.labels.items()]
        else:
            wanted = list(enrolled)
        if not wanted:
            said = "no host is enrolled" if not selector else f"no host has the labels {_spell(selector)}"
            raise errors.NoHosts(said, remedy="`fleet host list` shows hosts and labels")
        wanted.sort()
        return self._targets({host: enrolled[host] for host in wanted})

    def push(
        self,
        task: str | AnyContract,
        *,
        on: str | Sequence[str] | None = None,
        selector: Mapping[str, str] | None = None,
        all_hosts: bool = False,
        arguments: Mapping[str, Any] | None = None,
        offline: OfflinePolicy = "fail",
        expires: Duration | datetime | None = None,
        countdown: Duration | None = None,
        eta: Moment | None = None,
        time_limit: Duration | None = None,
        soft_time_limit: Duration | None = None,
        max_retries: int | None = None,
        retry_backoff: Duration | None = None,
        retry_backoff_max: Duration | None = None,
        retry_of: str | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Batch:
        """Push a task to hosts; see `targets` for naming them, `fleet.dispatch.Options` for what else may be said.

        `offline` says what to do about a host that is not connected, or takes no new work: with "fail" nothing is
        pushed to any host and `errors.HostNotConnected` is raised, "skip" leaves it out, "queue" queues for it (for a
        day unless `expires` says otherwise). Arguments are checked before anything is sent
        (`errors.InvalidArguments`); a host for which too much waits already is `errors.QueueFull`. Where a host or the
        broker goes away in the middle, `errors.PartlyPushed` names the runs that were pushed.

        It comes back when the broker has the messages; see `recorded` for more.
        """
        contract = registry.get(task) if isinstance(task, str) else task
        contract.parse(arguments or {})
        options = Options(
            expires=expires,
            countdown=countdown,
            eta=eta,
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
            max_retries=max_retries,
            retry_backoff=retry_backoff,
            retry_backoff_max=retry_backoff_max,
            retry_of=retry_of,
            description=description,
            metadata=metadata,
            batch=str(uuid.uuid4()),
            offline="queue" if offline == "queue" else "fail",
        )
        obstacles = {
            target.host: target.obstacle(queues=offline == "queue")
            for target in self.targets(on=on, selector=selector, all_hosts=all_hosts)
        }
        skipped = [
            host
            for host, obstacle in obstacles.items()
            if offline == "skip" and isinstance(obstacle, errors.HostNotConnected)
        ]
        chosen = [host for host in obstacles if host not in skipped]
        for host in chosen:
            if obstacle := obstacles[host]:
                raise obstacle
        return self._push(contract, chosen, arguments or {}, options, skipped=skipped, skips=offline == "skip")

    def _push(
        self,
        contract: AnyContract,
        hosts: Sequence[str],
        arguments: Mapping[str, Any],
        options: Options,
        *,
        skipped: list[str],
        skips: bool,
    ) -> Batch:
        task = self.dispatcher.task(contract.name)
        results: list[RunResult] = []
        for host in hosts:
            try:
                results.append(task.push(arguments, host=host, options=options))
            except errors.HostNotConnected as exc:  # it was there a moment ago
                if not skips:
                    raise _cut_short(results, hosts, exc) from exc
                skipped.append(host)
            except errors.FleetError as exc:
                raise _cut_short(results, hosts, exc) from exc
        return Batch(contract.name, tuple(results), tuple(skipped), str(options.batch))

    def recorded(self, batch: Batch, *, timeout: float = 2.0) -> bool:
        """Wait until the control plane has recorded a push, and say whether it has, `timeout` seconds at most.

        Until then a broker that loses its disk loses the push; afterwards the control plane sends it again. It is
        usually a fraction of a second. Raises `errors.BrokerUnavailable`.
        """
        if not batch.results:
            return True
        last = batch.results[-1].report  # they are taken in in order
        ends, pause = time.monotonic() + timeout, threading.Event()
        while not self.dispatcher.has_recorded(last):
            if time.monotonic() >= ends:
                return False
            pause.wait(_LOOK_SECONDS)
        return True

    def cancel(self, run_id: str, *, reason: str = "") -> None:
        """Ask for the end of a run, whether it waits or runs; what came of it, its result tells.

        A run that waits in its host's queue is ended by the control plane, also while the host is offline; one that the
        host has taken is ended there. One that has ended stays as it ended. Raises `errors.InvalidValue`,
        `errors.NotFound` where no such host is enrolled, `errors.BrokerUnavailable`.
        """
        self.dispatcher.cancel(run_id, reason=reason)

    def approve(self, run_id: str, *, digest: str, reason: str = "", run_within: float = 900.0) -> None:
        """Say that a run which waits for approval may begin, once, within so many seconds.

        `digest` says what is approved: `contracts.approvals.digest` of the message that somebody else has pushed. The
        host of the run checks all of it, and reports what came of it (`Fleet.watch`). Raises as `cancel` does, and
        `errors.CredentialUnusable`, `errors.NotPermitted`.
        """
        self.dispatcher.approve(run_id, digest=digest, reason=reason, run_within=run_within)

    def deny(self, run_id: str, *, digest: str, reason: str = "") -> None:
        """Say that a run which waits for approval is never to begin; see `approve`."""
        self.dispatcher.deny(run_id, digest=digest, reason=reason)

    def output(self, *run_ids: str, follow: bool = True, timeout: float | None = None) -> Output:
        """Return what runs say while they run, to be iterated over (`Said`), in order for each run.

        With `follow` until all of them have ended, else what is there already: the newest of it, for a minute after
        the run's end, or shorter where many that say much end on one host. Iterating raises `errors.TimedOut` after
        `timeout` seconds, `errors.BrokerUnavailable`; for what is no run id this raises `errors.InvalidValue`.
        """
        return Output(self.dispatcher, run_ids, follow=follow, timeout=timeout)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Listen to what the control plane records from now on."""
        client: Any = connect(self.dispatcher.broker, name="watch", retries=1)
        try:
            with translated(self.dispatcher.broker), client.pubsub(ignore_subscribe_messages=True) as pubsub:
                pubsub.subscribe(names.WATCH)
                pubsub.get_message(ignore_subscribe_messages=False, timeout=5)  # the subscription stands
                yield Watch(pubsub)
        finally:
            client.close()

    def _targets(self, members: Mapping[str, Member]) -> list[Target]:
        client = self.dispatcher.redis
        with translated(self.dispatcher.broker), client.pipeline(transaction=False) as pipe:
            connected = presence.connected(client, members)
            for host in members:
                pipe.llen(names.queue(host))
            waiting = pipe.execute()
        return [
            Target(host, member.labels, host in connected, member.availability, length)
            for (host, member), length in zip(members.items(), waiting, strict=True)
        ]


def _cut_short(results: Sequence[RunResult], chosen: Sequence[str], cause: errors.FleetError) -> errors.FleetError:
    """Return what to raise where a push ends before its last host: the cause, or with it what was pushed until then."""
    if not results:
        return cause
    return errors.PartlyPushed(tuple(result.id for result in results), wanted=len(chosen), cause=cause)


def _spell(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in selector.items())
