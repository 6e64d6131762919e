"""The host worker's process: one for each state directory, and a session of the host in it."""

import fcntl
import logging
import os
import signal
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from celery import signals as celery_signals
from celery.exceptions import SecurityWarning

from fleet import clock, credentials, environment, errors, logs, powers
from fleet.contracts.credentials import HostCredential
from fleet.health import Question
from fleet.local import endpoint, pidfile
from fleet.local.notify import Notifier
from fleet.local.signals import asking_to_stop
from fleet.settings import Settings
from workers.host.health import HostHealth
from workers.host.metrics import HostMetrics
from workers.host.own import REVOKED, Own
from workers.host.session import Session
from workers.host.store import Store

log = logs.get(__name__)


#: Somebody who looks whether a worker lives takes its lock for a moment.
_LOCKED_WITHIN_SECONDS = 1.0


def _nothing() -> None:
    """Be called where nobody wants to know."""


def main(
    settings: Settings,
    *,
    host: str,
    credential: HostCredential,
    say: Callable[[str], None],
    recorded: AbstractContextManager[None] | None = None,
    on_alive: Callable[[], None] = _nothing,
    stays: bool = False,
) -> int:
    """Run the worker of `host` until it is told to stop; return the exit code.

    `recorded` is entered for as long as this is the host's worker, `on_alive` is called at each heartbeat, the first of
    which comes when it consumes. `say` gets what a person has to know who starts it. With `stays`, one that has ended
    for good returns only when it is told to stop, and until then is alive and unhealthy.

    Raises `errors.LocalFault` where another worker of this host runs on the same state directory, or its journal is
    unusable, `errors.BrokerRefused` where the broker does not take the credential, and `errors.CredentialUnusable`
    where the host was put out of the fleet.
    """
    manager = environment.take_service_manager()
    _quieten_celery()
    own = Own(settings.credential_path(host), credential)
    broker = credentials.broker(credential, settings)
    directory, health = settings.host_dir(host), HostHealth(host)
    metrics = HostMetrics(health.look)
    with (
        _only_worker(directory / pidfile.LOCK, host),
        recorded or nullcontext(),
        endpoint.serve(
            settings.health_listening(port=settings.resolved_advertise_port),
            look=health.look,
            file=directory / endpoint.WORKER_FILE,
            pages={"/metrics": metrics.page},
        ) as tell_address,
        Notifier(manager, lives=lambda: health.look().answers(Question.LIVE)) as notifier,
    ):

        def alive() -> None:
            notifier.ready()
            on_alive()

        store = Store(directory / "journal.db", host=host)
        try:
            if store.recall(REVOKED) == own.identity.key:
                refused = errors.CredentialUnusable(
                    f"host {host!r} was put out of the fleet, and takes nothing any more",
                    remedy="to let it in again, get a token with `fleet token create` and use `fleet enroll --force`",
                )
                if not stays:
                    refused.exit_code = os.EX_NOPERM  # by which systemd knows that no new start helps
                    raise refused
                tell_address()
                return _stay(health, str(refused), code=os.EX_NOPERM, told=lambda: False)
            _warn(settings, host, say)
            session = Session(
                settings,
                own=own,
                broker=broker,
                store=store,
                on_alive=alive,
                health=health,
                metrics=metrics,
                on_ending=notifier.ending,
            )
            tell_address()
            code = session.run()
            why = session.dismissal.reason_for_good() if stays else None
            return _stay(health, why, code=code, told=lambda: session.told_to_stop) if why else code
        except sqlite3.Error as exc:
            raise errors.LocalFault(
                f"journal {store.path}: cannot be written ({exc})", remedy="free some space, or mend the disk"
            ) from exc
        finally:
            store.close()


def _stay(health: HostHealth, why: str, *, code: int, told: Callable[[], bool]) -> int:
    """Wait for a signal to stop, unless one has been `told` already; return the exit code.

    Docker starts again whatever exits, by whatever code.
    """
    stop = threading.Event()
    for number in asking_to_stop():
        signal.signal(number, lambda *_: stop.set())
    if not told():  # looked at once signals come here: none is lost between the two
        health.stays(why)
        log.error(
            "worker.stays", reason=why, exit_code=code, next="it waits to be told to stop; no new start mends that"
        )
        stop.wait()
    return code


def _warn(settings: Settings, host: str, say: Callable[[str], None]) -> None:
    """Say once what the fleet may do to this host by this worker."""
    given = powers.of(settings)
    log.warning("host.entrusted", host=host, **given.fields())
    if settings.log_format == "console":
        say(given.text(host))


def _quieten_celery() -> None:
    """Leave logging to `fleet.logs`, and drop what Celery says that is so by design."""
    celery_signals.setup_logging.connect(_keep_logging, weak=False)
    # A worker that drives the Docker Engine is as good as root; README says so.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Fleet's own `broker.lost` and `broker.regained` say it once an outage.
    logging.getLogger("celery.worker.consumer.consumer").setLevel(logging.ERROR)


def _keep_logging(**_: Any) -> None:
    """Be a receiver of `setup_logging`: Celery configures logging itself only where there is none."""


@contextmanager
def _only_worker(path: Path, host: str) -> Iterator[None]:
    """Hold the lock of this host's state; raises `errors.LocalFault` where another worker has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            _take(lock)
        except OSError as exc:
            lock.seek(0)
            raise errors.LocalFault(
                f"a worker of host {host!r} runs already (process {lock.read().strip() or 'unknown'})",
                remedy="stop it first, or give this one another --host-id",
            ) from exc
        try:
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        except OSError as exc:
            raise errors.LocalFault(
                f"lock {path}: cannot be written ({exc.strerror})", remedy="make room; no worker starts without"
            ) from exc
        yield


def _take(lock: IO[str]) -> None:
    """Take a lock that nobody holds for long; raises BlockingIOError where somebody does."""
    deadline, pause = clock.elapsed() + _LOCKED_WITHIN_SECONDS, threading.Event()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.elapsed() > deadline:
                raise
            pause.wait(0.02)
        else:
            return
