"""The dispatcher: one principal's way to the broker, on which pushes and requests to cancel travel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from kombu.exceptions import OperationalError

from fleet import clock, errors, names, redaction
from fleet.broker import app as broker_app
from fleet.broker.connection import connect, translated
from fleet.broker.results import RESULT_TTL_SECONDS
from fleet.contracts import registry
from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind, Report
from fleet.dispatch import checking, membership
from fleet.dispatch.control import HostControl
from fleet.dispatch.pushing import ContractTask
from fleet.dispatch.result import RunResult
from fleet.settings import Settings

#: For how long a host that was found fit to be pushed to is taken for that, and of how many that is remembered.
_GOOD_FOR_SECONDS = 1.0
_MOST_REMEMBERED = 10_000
#: As in `fleet.contracts.control.CancelRun`.
LONGEST_REASON = 1024


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
        #: (host, queues) → when that was asked, and the broker's time then
        self._found_fit: dict[tuple[str, bool], tuple[float, float]] = {}
        app: Any = self.app  # the stubs know the property as read-only
        app.control = HostControl(self)
        for contract in registry.known().values():
            self.app.register_task(ContractTask(contract, self))

    def task(self, name: str) -> "ContractTask":
        """Return the task of that contract; raises `errors.UnknownTask`."""
        task: Any = self.app.tasks[registry.get(name).name]
        return cast("ContractTask", task)

    def result(self, run_id: str) -> RunResult:
        """Return the result of a run that was pushed earlier, maybe by somebody else."""
        return RunResult(run_id, backend=self.app.backend, app=self.app)

    def members(self) -> dict[str, membership.Member]:
        """Return the accepted hosts by their ids."""
        with translated(self.broker_url):
            entries: Any = self.redis.hgetall(names.HOSTS)
        return {host: membership.read(entry) for host, entry in entries.items()}

    def require_host(self, host: str, *, queues: bool) -> float:
        """Return the broker's time in unix seconds, having looked whether the host may be pushed to.

        `queues` says that the message may wait for the host. Raises `errors.HostNotEnrolled` where no such host is
        known, `errors.HostNotAvailable`, `errors.HostNotConnected`, `errors.QueueFull`. One that was found fit is not
        asked for again within a second: the registry itself notices after 35 s that one is silent.
        """
        asked_at, broker_time = self._found_fit.get((host, queues), (float("-inf"), 0.0))
        passed = clock.elapsed() - asked_at
        if passed < _GOOD_FOR_SECONDS:
            return broker_time + passed
        with translated(self.broker_url), self.redis.pipeline(transaction=False) as pipe:
            pipe.exists(names.presence(host))
            pipe.hget(names.HOSTS, host)
            pipe.llen(names.queue(host))
            pipe.time()
            is_connected, entry, waiting, now = pipe.execute()
            if entry is None:
                raise errors.HostNotEnrolled(host, self._enrolled())
        availability = membership.read(entry).availability
        found = membership.obstacle(
            host, availability=availability, connected=bool(is_connected), waiting=waiting, queues=queues
        )
        if found:
            raise found
        if len(self._found_fit) > _MOST_REMEMBERED:
            self._found_fit.clear()
        if waiting < membership.MOST_WAITING // 2:  # a queue that is nearly full is looked at each time
            self._found_fit[host, queues] = (clock.elapsed(), _seconds(now))
        return _seconds(now)

    def cancel(self, run_id: str, *, reason: str = "") -> None:
        """Tell the host of the run to end it, and the control plane that this was asked for, in one transaction.

        Raises `errors.InvalidValue`, `errors.NotFound` for a run of a host that is not enrolled,
        `errors.BrokerUnavailable`.
        """
        host = names.host_of_run(run_id)
        checking.text("reason", reason, most=LONGEST_REASON)
        sender = names.principal_sender(self.principal)
        with translated(self.broker_url), self.redis.pipeline(transaction=False) as pipe:
            pipe.hexists(names.HOSTS, host)
            pipe.time()
            is_enrolled, now = pipe.execute()
            if not is_enrolled:
                hint = errors.did_you_mean(host, self._enrolled()) or "`fleet task list` shows tasks and their hosts"
                raise errors.NotFound(f"no host named {host!r} is enrolled, so it has no tasks", remedy=hint)
            told = CancelRun(run=run_id, by=self.principal, reason=reason)
            asked = Report(
                sender=sender, kind=Kind.RUN_CANCEL_REQUESTED, run=run_id, at=_seconds(now), data={"reason": reason}
            )
        with translated(self.broker_url), self.redis.pipeline(transaction=True) as pipe:
            pipe.lpush(names.control(host), told.model_dump_json())
            pipe.lpush(names.reports(sender), asked.model_dump_json())
            pipe.sadd(names.REPORTS_DIRTY, sender)
            pipe.execute()

    def has_recorded(self, report: str) -> bool:
        """Say whether the control plane has taken a report of this principal in: it removes what it has recorded."""
        command: Any = self.redis
        with translated(self.broker_url):
            return command.lpos(names.reports(names.principal_sender(self.principal)), report) is None

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
        backend: Any = self.app.backend
        backend.close()
        self.app.close()
        self.redis.close()


def _seconds(broker_time: tuple[int, int]) -> float:
    seconds, microseconds = broker_time
    return seconds + microseconds / 1e6
