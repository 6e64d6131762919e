"""The dispatcher: one principal's way to the broker, on which pushes and requests to cancel travel."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import kombu.pools
from kombu.exceptions import OperationalError

from fleet import clock, credentials, errors, logs, names, policy
from fleet.broker import app as broker_app
from fleet.broker.connection import connect, translated, unreachable
from fleet.broker.results import RESULT_TTL_SECONDS
from fleet.contracts import AnyContract, registry
from fleet.contracts.control import ApproveRun, CancelRun, ControlMessage, DenyRun
from fleet.contracts.credentials import PrincipalCredential
from fleet.contracts.reports import Kind, Report
from fleet.contracts.verdicts import Decision
from fleet.dispatch import checking, membership
from fleet.dispatch.control import HostControl
from fleet.dispatch.pushing import ContractTask
from fleet.dispatch.result import RunResult
from fleet.dispatch.signer import Signer
from fleet.security.identity import HostIdentity
from fleet.settings import Settings

log = logs.get(__name__)

#: For how long a host that was found fit to be pushed to is taken for that, and of how many that is remembered.
_GOOD_FOR_SECONDS = 1.0
_MOST_REMEMBERED = 10_000
#: As in `fleet.contracts.control.CancelRun`.
LONGEST_REASON = 1024


@dataclass(frozen=True)
class Fit:
    """A host that may be pushed to: who it is, and the broker's time then, in unix seconds."""

    host: HostIdentity
    now: float


class Dispatcher:
    """Sends pushes of one principal through one broker."""

    def __init__(
        self, settings: Settings, *, held: PrincipalCredential | None = None, in_sight_only: bool = False
    ) -> None:
        """Push as whoever holds that; without it, read the principal's file.

        With `in_sight_only` a host that the principal's selectors do not name is, in all that is said, none at all.
        Raises `errors.CredentialUnusable` where there is none, or none that fits.
        """
        path = None
        if held is None:
            path = settings.principal_path(settings.resolved_principal)
            held = credentials.load_principal(path, name=settings.resolved_principal)
        self.signer = Signer(held, path)
        self._in_sight_only = in_sight_only
        self.broker = credentials.broker(held, settings)
        self.principal = held.name
        self.redis = connect(self.broker, name=f"client-{self.principal}", connections=4, retries=1)
        self.app = broker_app.make(
            "fleet",
            broker=self.broker,
            transport="fleet.broker.channel:Transport",
            transport_options={"client_name": f"fleet-client-{self.principal}", "signer": self.signer},
            result_backend="fleet.broker.results:Backend",
            result_expires=RESULT_TTL_SECONDS,
        )
        #: (host, queues) → when that was asked, and the answer
        self._found_fit: dict[tuple[str, bool], tuple[float, Fit]] = {}
        app: Any = self.app  # the stubs know the property as read-only
        app.control = HostControl(self)
        app.check_result = self.signer.check_result
        # Celery binds a task's class to one app: of a class that two principals of a process shared, each would push by
        # the login and the key of whoever came last.
        bound: type[ContractTask] = types.new_class("BoundTask", (ContractTask,))
        for contract in registry.known().values():
            self.app.register_task(bound(contract, self))

    def task(self, name: str) -> "ContractTask":
        """Return the task of that contract; raises `errors.UnknownTask`."""
        task: Any = self.app.tasks[registry.get(name).name]
        return cast("ContractTask", task)

    def result(self, run_id: str) -> RunResult:
        """Return the result of a run that was pushed earlier, maybe by somebody else."""
        return RunResult(run_id, backend=self.app.backend, app=self.app)

    def members(self) -> dict[str, membership.Member]:
        """Return the accepted hosts in sight by their ids; an entry that the fleet has not signed is left out with a
        warning."""
        with translated(self.broker), self.redis.pipeline(transaction=False) as pipe:
            pipe.get(names.TRUST)
            pipe.hget(names.PRINCIPALS, self.principal)  # or a level that was changed would look like a revocation
            pipe.hgetall(names.HOSTS)
            statement, credential, entries = pipe.execute()
        self.signer.learn(statement=statement, credential=credential)
        found = {}
        for host, entry in entries.items():
            try:
                found[host] = membership.read(host, entry, trust=self.signer.trust)
            except errors.NotTrusted as exc:
                log.warning("host.untrusted", host=host, error=str(exc), next="it is left out")
        if not entries and not statement:
            raise errors.BrokerEmpty
        if entries and not found:
            raise errors.NotTrusted(
                f"of {len(entries)} hosts in the registry none is vouched for by a key of the fleet that is known here",
                remedy="has the fleet changed its key while this principal was away? "
                f"`fleet principal rotate {self.principal}` makes a new file, where the control plane runs",
            )
        return {host: member for host, member in found.items() if self._sees(member)}

    def require_host(self, host: str, contract: AnyContract, *, queues: bool) -> Fit:
        """Return who the host is, having looked whether this principal may push that to it, and now.

        `queues` says that the message may wait for the host. Raises `errors.HostNotEnrolled` where no such host is
        known, `errors.NotTrusted`, `errors.CredentialUnusable`, `errors.NotPermitted`, `errors.HostNotAvailable`,
        `errors.HostNotConnected`, `errors.QueueFull`. One that was found fit is not asked for again within a second:
        the registry itself notices after 35 s that one is silent.
        """
        asked_at, fit = self._found_fit.get((host, queues), (float("-inf"), None))
        passed = clock.elapsed() - asked_at
        if fit is None or passed >= _GOOD_FOR_SECONDS:
            fit, passed = self._look_up(host, queues=queues), 0.0
        now = fit.now + passed
        self.signer.require_valid(now=now)
        self.signer.require_address(fit.host)
        self._require_level(fit.host, contract)
        return Fit(fit.host, now)

    def _require_level(self, host: HostIdentity, contract: AnyContract) -> None:
        """Raise `errors.NotPermitted` for a task that this principal's level is denied, and no rule of the fleet's
        policy allows. What is governed is for the host to judge, so that it is on record."""
        level = self.signer.identity.level
        decision, why = policy.of_task(level, contract.risk)
        if contract.governed or decision is not Decision.DENY:
            return
        question = policy.Question(
            principal=self.principal,
            level=level,
            labels=host.labels,
            contract=contract,
            request=contract.request.model_construct(),
            limit_seconds=None,
        )
        if policy.decide(question, fleet=self._policy(), host=policy.HostPolicy()).decision is Decision.DENY:
            raise errors.NotPermitted(
                f"principal {self.principal!r} is {level.value}, and {contract.name} {contract.risk.value}: {why}",
                remedy="nothing was sent; `fleet principal set-level` raises the level, where the control plane runs",
            )

    def _policy(self) -> policy.FleetPolicy | None:
        """Return the fleet's policy as it is published; None where there is none that can be believed."""
        with translated(self.broker):
            signed: Any = self.redis.get(names.POLICY)
        try:
            return policy.read(signed, self.signer.trust.keys).policy if signed else None
        except errors.NotTrusted:
            return None

    def _look_up(self, host: str, *, queues: bool) -> Fit:
        with translated(self.broker), self.redis.pipeline(transaction=False) as pipe:
            pipe.exists(names.presence(host))
            pipe.hget(names.HOSTS, host)
            pipe.llen(names.queue(host))
            pipe.time()
            pipe.get(names.TRUST)
            pipe.hget(names.PRINCIPALS, self.principal)
            is_connected, entry, waiting, time, statement, credential = pipe.execute()
            self.signer.learn(statement=statement, credential=credential)
        member = self._member(host, entry, statement=statement)
        if member is None:
            raise errors.HostNotEnrolled(host, self._enrolled())
        found = membership.obstacle(
            host, availability=member.availability, connected=bool(is_connected), waiting=waiting, queues=queues
        )
        if found:
            raise found
        fit = Fit(member.identity, clock.seconds(time))
        if len(self._found_fit) > _MOST_REMEMBERED:
            self._found_fit.clear()
        if waiting < membership.MOST_WAITING // 2:  # a queue that is nearly full is looked at each time
            self._found_fit[host, queues] = (clock.elapsed(), fit)
        return fit

    def cancel(self, run_id: str, *, reason: str = "") -> None:
        """Tell the host of the run to end it, and the control plane that this was asked for, in one transaction.

        Raises `errors.InvalidValue`, `errors.NotFound` for a run of a host that is not enrolled,
        `errors.BrokerUnavailable`.
        """
        host, identity, now = self._reach(run_id, reason)
        sender = names.principal_sender(self.principal)
        told = CancelRun(run=run_id, by=self.principal, reason=reason)
        asked = Report(sender=sender, kind=Kind.RUN_CANCEL_REQUESTED, run=run_id, at=now, data={"reason": reason})
        with translated(self.broker), self.redis.pipeline(transaction=True) as pipe:
            pipe.lpush(names.control(host), self.signer.word(identity.key, told))
            pipe.lpush(names.reports(sender), self.signer.report(sender, asked.model_dump_json()))
            pipe.sadd(names.REPORTS_DIRTY, sender)
            pipe.execute()

    def approve(self, run_id: str, *, digest: str, reason: str = "", run_within: float) -> None:
        """Tell the host of a run that waits for approval to begin it, within so many seconds from now.

        `digest` says what is approved (`contracts.approvals.digest`); the host checks it, and that this principal is
        somebody else than who asked, and may approve that. Raises as `cancel` does.
        """
        host, identity, now = self._reach(run_id, reason)
        word = ApproveRun(run=run_id, digest=digest, by=self.principal, reason=reason, run_before=now + run_within)
        self._tell(host, identity, word)

    def deny(self, run_id: str, *, digest: str, reason: str = "") -> None:
        """Tell the host of a run that waits for approval to end it; see `approve`."""
        host, identity, _now = self._reach(run_id, reason)
        self._tell(host, identity, DenyRun(run=run_id, digest=digest, by=self.principal, reason=reason))

    def _tell(self, host: str, identity: HostIdentity, word: ControlMessage) -> None:
        with translated(self.broker):
            self.redis.lpush(names.control(host), self.signer.word(identity.key, word))

    def _reach(self, run_id: str, reason: str) -> tuple[str, HostIdentity, float]:
        """Return the host of a run, who that is, and the broker's time, having looked whether this principal has
        something to say there."""
        host = names.host_of_run(run_id)
        checking.text("reason", reason, most=LONGEST_REASON)
        with translated(self.broker), self.redis.pipeline(transaction=False) as pipe:
            pipe.hget(names.HOSTS, host)
            pipe.time()
            pipe.get(names.TRUST)
            pipe.hget(names.PRINCIPALS, self.principal)
            entry, time, statement, credential = pipe.execute()
            self.signer.learn(statement=statement, credential=credential)
        member = self._member(host, entry, statement=statement)
        if member is None:
            hint = errors.did_you_mean(host, self._enrolled()) or "`fleet task list` shows tasks and their hosts"
            raise errors.NotFound(f"no host named {host!r} is enrolled, so it has no tasks", remedy=hint)
        now = clock.seconds(time)
        self.signer.require_valid(now=now)
        self.signer.require_address(member.identity)
        return host, member.identity, now

    def has_recorded(self, report: str) -> bool:
        """Say whether the control plane has taken a report of this principal in: it removes what it has recorded."""
        command: Any = self.redis
        with translated(self.broker):
            return command.lpos(names.reports(names.principal_sender(self.principal)), report) is None

    def _member(self, host: str, entry: str | None, *, statement: str | None) -> membership.Member | None:
        """Read a host's entry of the registry; None where there is none, or it is out of sight."""
        if entry is None:
            if not statement:
                raise errors.BrokerEmpty
            return None
        member = membership.read(host, entry, trust=self.signer.trust)
        return member if self._sees(member) else None

    def _sees(self, member: membership.Member) -> bool:
        return not self._in_sight_only or self.signer.identity.may_address(member.identity)

    def _enrolled(self) -> list[str]:
        """Return the names that may be suggested for one that is none."""
        if self._in_sight_only:
            return list(self.members())
        with translated(self.broker):
            return [str(host) for host in self.redis.hkeys(names.HOSTS)]

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the errors of kombu and redis-py into Fleet's."""
        try:
            with translated(self.broker):
                yield
        except OperationalError as exc:
            raise unreachable(self.broker, exc) from exc

    def close(self) -> None:
        backend: Any = self.app.backend
        backend.close()
        # kombu keeps its pools for the life of the process, and with them what they have open
        connection = self.app.connection_for_write()
        for pools in (kombu.pools.producers, kombu.pools.connections):
            pools[connection].force_close_all()
            del pools[connection]
        self.app.close()
        self.redis.close()
