"""The host worker's process: one for each state directory, and a session of the host in it."""

import fcntl
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning

from fleet import credentials, errors, logs
from fleet.contracts.credentials import HostCredential
from fleet.settings import Settings
from workers.host.own import REVOKED, Own
from workers.host.session import Session
from workers.host.store import Store

log = logs.get(__name__)


def main(settings: Settings, *, host: str, credential: HostCredential) -> int:
    """Run the worker of `host` until it is told to stop; return the exit code.

    Raises `errors.LocalFault` where another worker of this host runs on the same state directory, or its journal is
    unusable, `errors.BrokerRefused` where the broker does not take the credential, and `errors.CredentialUnusable`
    where the host was put out of the fleet.
    """
    _quieten_celery()
    own = Own(settings.credential_path(host), credential)
    broker = credentials.broker(credential, settings)
    with _only_worker(settings.host_dir(host) / "worker.lock", host):
        store = Store(settings.host_dir(host) / "journal.db", host=host)
        if store.recall(REVOKED) == own.identity.key:
            store.close()
            raise errors.CredentialUnusable(
                f"host {host!r} was put out of the fleet, and takes nothing any more",
                remedy="to let it in again, get a token with `fleet token create` and use `fleet enroll --force`",
            )
        try:
            return Session(settings, own=own, broker=broker, store=store).run()
        except sqlite3.Error as exc:
            raise errors.LocalFault(
                f"journal {store.path}: cannot be written ({exc})", remedy="free some space, or mend the disk"
            ) from exc
        finally:
            store.close()


def _quieten_celery() -> None:
    """Leave logging to `fleet.logs`, and drop what Celery says that is so by design."""
    signals.setup_logging.connect(_keep_logging, weak=False)
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
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.seek(0)
            raise errors.LocalFault(
                f"a worker of host {host!r} runs already (process {lock.read().strip() or 'unknown'})",
                remedy="stop it first, or give this one another --host-id",
            ) from exc
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield
