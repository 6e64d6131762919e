"""The control worker's process: enrollment desk, ingest, beats, and metrics, on one broker and one database.

Any number may run; one holds the lease and writes the ledger, all of them serve joining hosts.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import timedelta
from functools import partial

import redis
from celery import Celery
from sqlalchemy import Engine

from beat import control as schedule
from beat.lease import Lease
from beat.scheduler import BeatThread
from fleet import availability, db, environment, errors, inventory, logs, names
from fleet.address import Address
from fleet.broker import app as broker_app
from fleet.broker.connection import check, check_durability, connect
from fleet.health import Question
from fleet.keyring import Keyrings
from fleet.local import endpoint
from fleet.local.notify import Notifier
from fleet.local.signals import Signals
from fleet.settings import CONTROL_HEALTH_PORT, Settings
from workers.control import metrics
from workers.control.enrollment import EnrollmentDesk
from workers.control.health import ControlHealth, Parts
from workers.control.ingest import Ingest
from workers.control.metrics import OwnState
from workers.control.presence import PresenceSweep
from workers.control.rescue import Rescue
from workers.control.trusting import Trusting
from workers.control.voice import Voice

log = logs.get(__name__)

_BROKER_RETRY = timedelta(seconds=1)
#: What runs in the beat must not hang for long: of the lease's 8 s, two renewals may be lost to a silent broker.
_BEAT_TIMEOUT = timedelta(seconds=2)
#: All parts together get this long to end; what is cut off then is done again by whoever comes next.
_STOP_WITHIN = timedelta(seconds=2)


def main(settings: Settings) -> int:
    """Run a control worker until SIGTERM, SIGINT or SIGHUP; return the exit code.

    It waits for a broker that is away. A broker that loses what it is given (no append-only file, or one that evicts)
    is refused with `errors.BrokerRefused` unless `allow_unsafe_broker` is set. A database that cannot be used is an
    error at once (`errors.DatabaseUnavailable`): a wrong URL does not mend itself, and whoever supervises this process
    starts it again while the right one is still coming up.
    """
    broker = settings.require_broker()
    manager, health = environment.take_service_manager(), ControlHealth()
    with Signals() as signals, ExitStack() as stack:
        tell_address = stack.enter_context(
            endpoint.serve(
                settings.health_listening(port=CONTROL_HEALTH_PORT),
                look=health.look,
                file=settings.state_dir / endpoint.CONTROL_FILE,
            )
        )
        engine = db.open_engine(settings.resolved_database_url)
        stack.callback(engine.dispose)
        db.migrate(engine)
        beat_client = stack.enter_context(closing(connect(broker, name="control-beat", timeout=_BEAT_TIMEOUT)))
        if not _await_broker(beat_client, broker, signals, allow_unsafe=settings.allow_unsafe_broker):
            return 0
        keyrings = Keyrings(settings.signing_keys_path, partial(db.session, engine))
        worker = ControlWorker(
            engine=engine,
            keyrings=keyrings,
            broker=broker,
            beat_client=beat_client,
            ingest_client=stack.enter_context(closing(connect(broker, name="control", connections=4))),
            desk_client=stack.enter_context(closing(connect(broker, name="control-enrollment"))),
            rescue_client=stack.enter_context(closing(connect(broker, name="control-rescue"))),
        )
        health.watch(worker.parts)
        notifier = stack.enter_context(Notifier(manager, lives=lambda: health.look().answers(Question.LIVE)))
        if settings.metrics_address is not None:
            metrics_client = stack.enter_context(
                closing(connect(broker, name="control-metrics", timeout=_BEAT_TIMEOUT))
            )
            stack.enter_context(
                metrics.serve(settings.metrics_address, engine=engine, client=metrics_client, own=worker.state)
            )
        worker.start()
        tell_address()
        notifier.ready()
        while not signals.asks_to_stop(signals.wait(timedelta(days=1).total_seconds())):
            pass
        health.ending()
        notifier.ending()
        worker.stop()
    return 0


class ControlWorker:
    """All parts of one control worker, wired. Each has a connection of its own, so that none waits for another."""

    def __init__(
        self,
        *,
        engine: Engine,
        keyrings: Keyrings,
        broker: Address,
        beat_client: "redis.Redis",
        ingest_client: "redis.Redis",
        desk_client: "redis.Redis",
        rescue_client: "redis.Redis",
    ) -> None:
        self._lease = Lease(beat_client, key=names.CONTROL_LEASE)
        voice = Voice(engine, keyrings)
        self._desk = EnrollmentDesk(engine=engine, client=desk_client, keyrings=keyrings)
        self._ingest = Ingest(engine=engine, client=ingest_client, lease=self._lease, voice=voice)
        sweep = PresenceSweep(engine=engine, client=beat_client)

        rescue = Rescue(engine=engine, client=rescue_client, lease=self._lease, voice=voice)
        self._trusting = Trusting(engine=engine, client=rescue_client, keyrings=keyrings, lease=self._lease)

        def publish_registry() -> None:
            with db.session(engine, write=False) as session:
                inventory.publish_hosts(session, beat_client)
                if self._lease.held():
                    availability.remind(session, beat_client, keyrings.current(session))

        def sweep_presence() -> None:
            if self._lease.held():
                sweep.run()

        app = broker_app.make(
            "fleet-control", broker=broker, transport="fleet.broker.channel:Transport", transport_options={}
        )
        _register(app, schedule.LEASE_TASK, self._lease.attempt)
        _register(app, schedule.PRESENCE_TASK, sweep_presence)
        _register(app, schedule.REGISTRY_TASK, publish_registry)
        _register(app, schedule.RESCUE_TASK, rescue.run)
        _register(app, schedule.TRUST_TASK, self._trusting.run)
        _register(app, schedule.JOINERS_TASK, self._trusting.prune)
        _register(app, schedule.DATABASE_TASK, partial(db.schema_version, engine))
        self._beat = BeatThread(app, schedule.ENTRIES, name="beat")
        self._slow_beat = BeatThread(app, schedule.SLOW_ENTRIES, name="slow-beat")
        self._database_beat = BeatThread(app, schedule.DATABASE_ENTRIES, name="database-beat")
        self.parts = Parts(
            beat=self._beat,
            database_beat=self._database_beat,
            lease=self._lease,
            ingest=self._ingest,
            ages={
                "beat": self._beat.age,
                "slow-beat": self._slow_beat.age,
                "ingest": self._ingest.age,
                "enrollment": self._desk.age,
            },
        )

    def start(self) -> None:
        self._beat.start()
        self._slow_beat.start()
        self._database_beat.start()
        self._ingest.start()
        self._desk.start()
        log.info("control.started")

    def state(self) -> OwnState:
        """Say how it is, for Prometheus."""
        return OwnState(
            lease_held=self._lease.held(),
            loop_ages={name: age() for name, age in self.parts.ages.items()},
            ingest_lag_seconds=self._ingest.lag(),
        )

    def stop(self) -> None:
        """End within two seconds, a little more on a broker that is silent."""
        ends = time.monotonic() + _STOP_WITHIN.total_seconds()

        def left() -> timedelta:
            return timedelta(seconds=max(0.0, ends - time.monotonic()))

        # told first, because they take longest to listen
        self._desk.stop(timeout=timedelta(0))
        self._slow_beat.stop(timeout=timedelta(0))
        self._database_beat.stop(timeout=timedelta(0))
        self._ingest.stop(left())
        self._beat.stop(timeout=left())
        self._desk.stop(timeout=left())
        self._slow_beat.stop(timeout=left())
        self._database_beat.stop(timeout=left())
        try:
            self._lease.release()
        except redis.RedisError as exc:
            log.warning("lease.unreleased", error=str(exc), next="it runs out by itself")
        log.info("control.stopped")


def _register(app: Celery, name: str, function: Callable[[], object]) -> None:
    def task() -> None:
        function()

    app.task(name=name, ignore_result=True, shared=False)(task)


def _await_broker(client: "redis.Redis", broker: Address, signals: Signals, *, allow_unsafe: bool) -> bool:
    """Wait until the broker answers; False where the process is to stop before. Raises `errors.BrokerRefused`."""
    failing = False
    while True:
        try:
            version = check(client, broker)
            problems = check_durability(client, broker)
        except errors.BrokerRefused:
            raise
        except errors.BrokerUnavailable as exc:
            if not failing:
                failing = True
                log.warning("broker.awaited", error=str(exc))
            if signals.asks_to_stop(signals.wait(_BROKER_RETRY.total_seconds())):
                return False
            continue
        for problem in problems:
            if not allow_unsafe:
                raise errors.BrokerRefused(
                    f"the broker can lose tasks: {problem}",
                    remedy="mend its settings, or set FLEET_ALLOW_UNSAFE_BROKER=true where that does not matter",
                )
            log.warning("broker.unsafe", problem=problem)
        log.info("broker.reached", version=version)
        return True
