"""The stack: broker, control plane, API, Flower and one enrolled host, as programs of one supervisor.

Which address each gets, in which order they start, when they count as ready. The order is what makes the first start
quick: the broker, then the control worker, which loads while this process makes the enrollment token, then the rest.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from fleet import errors, listening, names
from fleet.local import broker, ports, program
from fleet.local.admission import Admission
from fleet.local.background import Background
from fleet.local.broker import EmbeddedBroker
from fleet.local.state import StateDirectory
from fleet.local.supervisor import Outcome, Program, Supervisor

if TYPE_CHECKING:
    import redis

    from fleet.contracts.presence import Heartbeat
    from fleet.settings import Settings

#: Enough for a slow disk and a long append-only file; Ctrl-C works meanwhile.
_BROKER_SECONDS = 60.0
_READY_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked of this start."""

    broker_port: int | None = None
    with_flower: bool = True
    with_api: bool = True
    #: the settings file that was named; children read it, too
    config: Path | None = None


class Stack:
    """Everything on one machine. `check`, then `start`, then `supervisor.watch`."""

    def __init__(self, settings: "Settings", *, state: StateDirectory, supervisor: Supervisor, wishes: Wishes) -> None:
        self._settings = settings
        self._state = state
        self._supervisor = supervisor
        self._wishes = wishes
        remembered = state.remembered()
        self._former_url = remembered.get("broker_url")
        self.broker = EmbeddedBroker.of(self._former_url, remembered.get("flower_broker_url"), port=wishes.broker_port)
        self.host = settings.resolved_host_id
        self._admission = Admission(settings, broker=self.broker, host=self.host, former_url=self._former_url)
        self._first_token: str | None = None
        #: the worker's, as `missing` saw it last
        self.heartbeat: Heartbeat | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return ("broker", "control", "worker", *self._extras)

    @property
    def _extras(self) -> tuple[str, ...]:
        """The parts that no task waits for, in the order in which they start."""
        wished = {"api": self._wishes.with_api, "flower": self._wishes.with_flower}
        return tuple(name for name, is_wished in wished.items() if is_wished)

    def check(self) -> None:
        """Raise `errors.UsageError` or `errors.LocalFault` for what would make a start fail, before anything starts."""
        given = self._settings.broker_url
        if given is not None and given.get_secret_value() not in {self._former_url, self.broker.url.get_secret_value()}:
            raise errors.UsageError(
                "the settings name a broker, and `fleet up` brings its own",
                remedy="unset FLEET_BROKER_URL (and broker_url in the settings file), or start `fleet control` and "
                "`fleet worker`, which use that broker",
            )
        ports.require_free(
            self.broker.port, address=broker.ADDRESS, purpose="broker", remedy="choose another: --broker-port N"
        )
        if self._wishes.with_flower:
            ports.require_free(
                self._settings.flower_port,
                address=self._settings.flower_address,
                purpose="Flower",
                remedy="choose another: --flower-port N, or leave Flower out: --no-flower",
            )
        if self._wishes.with_api and self._settings.api_port:
            ports.require_free(
                self._settings.api_port,
                address=self._settings.api_address,
                purpose="API",
                remedy="choose another: --api-port N, or leave the API out: --no-api",
            )
        self._admission.fit_host()

    def start(self) -> Outcome:
        """Start everything; return READY when all are, LATE when some are not yet, STOPPING when asked to stop."""
        self._supervisor.start(self.broker.program(self._state))
        outcome = self._supervisor.watch(self.broker.answers, seconds=_BROKER_SECONDS)
        if outcome is Outcome.STOPPING:
            return outcome
        if outcome is Outcome.LATE:
            raise errors.LocalFault(
                f"the embedded broker does not answer after {_BROKER_SECONDS:.0f} s",
                remedy=f"its log is {self._state.logs / 'broker.log'}",
            )
        self._remember()
        self._supervisor.start(self._fleet("control"))
        # Beside it, so that Ctrl-C is heard: loading a database takes its time.
        preparing = Background(self._prepare)
        if self._supervisor.watch(preparing.is_done, seconds=_READY_SECONDS) is Outcome.STOPPING:
            return Outcome.STOPPING
        # The first time, this makes a token while the control worker loads.
        self._supervisor.start(self._fleet("worker", "--host-id", self.host))
        outcome = self._supervisor.watch(lambda: not self.missing(), seconds=_READY_SECONDS)
        if outcome is not Outcome.STOPPING:
            # Last, because no task waits for them: on two cores their seconds of loading would delay the others.
            listens = {
                "api": (self._settings.api_address, self._settings.api_port),
                "flower": (self._settings.flower_address, self._settings.flower_port),
            }
            for name in self._extras:
                address, port = listens[name]
                self._supervisor.start(self._fleet(name, "--address", address, "--port", str(port)))
        return outcome

    def _prepare(self) -> None:
        """Make what everybody on this machine needs to be let in, while the control worker loads."""
        self._admission.fit_principal(self._client)
        if not self._settings.credential_path(self.host).exists():
            self._first_token = self._admission.token(self._client)

    def missing(self) -> list[str]:
        """Return the names of those that are needed for a task and not ready."""
        import redis

        try:
            control = self._client.exists(names.CONTROL_LEASE)
            self.heartbeat = self._read_heartbeat()
        except redis.RedisError:
            return ["broker", "control", "worker"]
        return [name for name, ready in (("control", control), ("worker", self.heartbeat)) if not ready]

    @cached_property
    def _client(self) -> "redis.Redis":
        from fleet.broker import connection

        return connection.connect(self.broker.address, name="up", timeout=timedelta(seconds=1))

    def _read_heartbeat(self) -> "Heartbeat | None":
        """Return the heartbeat of the present worker: after a kill -9 the former one's is still there."""
        from fleet import presence

        found = presence.read(self._client, [self.host])[self.host]
        return found if found and found.pid == self._supervisor.pid("worker") else None

    def _fleet(self, command: str, *arguments: str) -> Program:
        return Program(
            name=command,
            argv=program.argv(command, *arguments),
            environment=partial(self._environment, command),
            directory=Path.cwd(),  # where ./fleet.toml is
            output=self._state.logs / f"{command}.log",
        )

    def _environment(self, command: str) -> dict[str, str]:
        variables = {"FLEET_STATE_DIR": str(self._state.path)}
        if command == "control" and self._settings.health_address not in {None, listening.OFF}:
            variables["FLEET_HEALTH_ADDRESS"] = f"{listening.LOOPBACK}:0"  # the one that was named is the worker's
        if command == "worker":
            # Ctrl-C leaves nothing behind within three seconds: what runs then goes on at the next start.
            variables["FLEET_STOP_GRACE"] = "PT0.5S"
            variables["FLEET_SHELL"] = str(self._settings.shell).lower()
        if command == "worker" and not self._settings.credential_path(self.host).exists():
            token, self._first_token = self._first_token, None
            variables["FLEET_TOKEN"] = token or self._admission.token(self._client)
        return program.environment(variables, config=self._wishes.config)

    def _remember(self) -> None:
        self._state.remember(
            {
                "broker_url": self.broker.url.get_secret_value(),
                "flower_broker_url": self.broker.flower_url.get_secret_value(),
                "host_id": self.host,
                "flower_address": self._settings.flower_address,
                "flower_port": self._settings.flower_port,
                "flower_user": self._settings.flower_user,
                "api_address": self._settings.api_address,
                "api_port": self._settings.api_port,
            }
        )
