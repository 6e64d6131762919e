"""The control worker's process: enrollment desk, ingest, and a beat, on one broker and one database.

Any number may run; one holds the lease and writes the ledger, all of them serve joining hosts.
"""

import signal
import threading
from datetime import timedelta
from typing import Any

import redis
from celery import Celery

from beat import control as schedule
from beat.lease import Lease
from beat.scheduler import BeatThread
from fleet import db, errors, inventory, logs, names
from fleet.broker import app as broker_app
from fleet.broker.connection import check, check_durability, connect
from fleet.settings import Settings
from workers.control.enrollment import EnrollmentDesk
from workers.control.ingest import Ingest
from workers.control.presence import PresenceSweep

log = logs.get(__name__)

_BROKER_RETRY = timedelta(seconds=1)


def main(settings: Settings) -> int:
    """Run a control worker until SIGTERM or SIGINT; return the exit code.

    It waits for a broker that is away. A broker that loses what it is given (no append-only file, or one that evicts)
    is refused with `errors.BrokerRefused` unless `allow_unsafe_broker` is set; a database that cannot be used is an
    error at once (`errors.DatabaseUnavailable`), because a wrong URL does not mend itself.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    engine = db.open_engine(settings.resolved_database_url)
    db.migrate(engine)
    url = settings.require_broker_url()
    with connect(url, name="control", connections=4) as client:
        if _await_broker(client, url, stopping, allow_unsafe=settings.allow_unsafe_broker):
            with connect(url, name="control-enrollment") as desk_client:
                ControlWorker(engine=engine, client=client, desk_client=desk_client, broker_url=url).run(stopping)
    engine.dispose()
    return 0


class ControlWorker:
    """All parts of one control worker, wired."""

    def __init__(self, *, engine: Any, client: "redis.Redis", desk_client: "redis.Redis", broker_url: str) -> None:
        self._client = client
        self._lease = Lease(client, key=names.CONTROL_LEASE)
        self._desk = EnrollmentDesk(engine=engine, client=desk_client)
        self._ingest = Ingest(engine=engine, client=client, lease=self._lease)
        sweep = PresenceSweep(engine=engine, client=client)

        def publish_registry() -> None:
            with db.session(engine, write=False) as session:
                inventory.publish_hosts(session, client)

        def sweep_presence() -> None:
            if self._lease.held():
                sweep.run()

        app = broker_app.make(
            "fleet-control", broker_url=broker_url, transport="fleet.broker.channel:Transport", transport_options={}
        )
        _register(app, schedule.LEASE_TASK, self._lease.attempt)
        _register(app, schedule.PRESENCE_TASK, sweep_presence)
        _register(app, schedule.REGISTRY_TASK, publish_registry)
        self._beat = BeatThread(app, schedule.ENTRIES, name="beat")

    def run(self, stopping: threading.Event) -> None:
        """Work until `stopping` is set."""
        self._beat.start()
        self._ingest.start()
        self._desk.start()
        log.info("control.started")
        stopping.wait()
        self._desk.stop()
        self._ingest.stop(timedelta(seconds=2))
        self._beat.stop()
        try:
            self._lease.release()
        except redis.RedisError as exc:
            log.warning("lease.unreleased", error=str(exc), next="it runs out by itself")
        log.info("control.stopped")


def _register(app: Celery, name: str, function: Any) -> None:
    def task() -> None:
        function()

    app.task(name=name, ignore_result=True, shared=False)(task)


def _await_broker(client: "redis.Redis", url: str, stopping: threading.Event, *, allow_unsafe: bool) -> bool:
    """Wait until the broker answers; False where the process is to stop before. Raises `errors.BrokerRefused`."""
    failing = False
    while not stopping.is_set():
        try:
            version = check(client, url)
            problems = check_durability(client, url)
        except errors.BrokerRefused:
            raise
        except errors.BrokerUnavailable as exc:
            if not failing:
                failing = True
                log.warning("broker.awaited", error=str(exc))
            stopping.wait(_BROKER_RETRY.total_seconds())
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
    return False
