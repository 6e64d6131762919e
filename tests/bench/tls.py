"""What TLS costs: the same Redis with and without it, in the same run.

    python -m tests.bench.tls

Printed: the median of a new connection with its first answer, of an answer on an open one, of push → result; and tasks
drained per second.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import redis

from tests.bench.worker import drain, round_trip
from tests.services import benched
from tests.services.broker import Broker
from tests.services.ports import free_port
from tests.services.tls import Certificates, redis_server

CONNECTIONS = 200
ANSWERS = 2000


def median(times: int, act: Callable[[], object]) -> float:
    """Return the median of so many, in milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def connected(broker: Broker) -> None:
    with broker.connect() as client:
        client.ping()


def measure(*, tls: bool) -> list[float]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "broker").mkdir()
        broker = Broker(redis_server(), directory / "broker", free_port())
        if tls:
            certificates = Certificates(directory)
            broker.certificate, broker.ca = certificates.server("127.0.0.1"), certificates.ca
        broker.start()
        stack.callback(broker.stop, kill=True)
        client: redis.Redis = stack.enter_context(broker.connect())
        measured = [median(CONNECTIONS, lambda: connected(broker)), median(ANSWERS, client.ping)]
        system, _worker = stack.enter_context(benched.one_host(directory, broker))
        task = system.fleet.dispatcher.task("fleet.host.ping")
        measured.append(round_trip(lambda: task.apply_async(host="bench")))
        measured.append(drain(lambda: task.apply_async(host="bench"), task.app))
        return measured


def main() -> None:
    print(f"{'':28}{'plaintext':>10}{'TLS':>10}{'ratio':>8}")
    names = ("connect and ask, p50 ms", "ask, p50 ms", "push → result, p50 ms", "drained, tasks/s")
    for name, without, with_ in zip(names, measure(tls=False), measure(tls=True), strict=True):
        print(f"{name:28}{without:10.2f}{with_:10.2f}{with_ / without:8.2f}")


if __name__ == "__main__":
    main()
