"""What benchmarks measure: a fleet of one host, and a stock Celery worker beside it."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from fleet import db
from tests.services.broker import Broker, serve
from tests.services.system import Part, System


@contextmanager
def place() -> Iterator[tuple[Path, Broker]]:
    """Give a directory and a broker of a benchmark's own."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "broker").mkdir()
        with contextmanager(serve)("valkey", directory / "broker") as broker:
            yield directory, broker


@contextmanager
def one_host(directory: Path, broker: Broker, *, host: str = "bench") -> Iterator[tuple[System, Part]]:
    """Give a fleet of one host, and its worker."""
    url = f"sqlite:///{directory / 'fleet.db'}"
    engine = db.open_engine(url)
    try:
        db.migrate(engine)
        system = System(directory, broker, url, engine)
        try:
            system.start_control()
            system.enroll(host)
            yield system, system.start_worker(host)
        finally:
            system.end()
    finally:
        engine.dispose()


@contextmanager
def stock(program: str, broker: Broker) -> Iterator[tuple[Celery, "subprocess.Popen[bytes]"]]:
    """Give an app of stock Celery's, and its worker: a Python program in which `{url}` stands for the broker's."""
    app = Celery("stock", broker=broker.url, backend=broker.url, set_as_current=False)
    with subprocess.Popen([sys.executable, "-c", program.format(url=broker.url)]) as worker:
        try:
            yield app, worker
        finally:
            worker.terminate()
