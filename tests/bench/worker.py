"""What an idle host worker costs, and what a task costs on it, beside stock Celery on the same broker in the same run.

    python -m tests.bench.worker

Stock is a Celery worker with a threads pool and `acks_late`, with the Redis result backend; both run a no-op. Printed:
memory (PSS), connections, CPU while idle, the median of push → result, and tasks drained per second.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
from celery import Celery
from celery.result import AsyncResult, ResultSet

from tests.services import benched
from tests.services.broker import Broker

ROUND_TRIPS = 300
DRAINED = 1000
IDLE_SECONDS = 10.0
STOCK = """
from celery import Celery
app = Celery("stock", broker={url!r}, backend={url!r})
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, worker_hijack_root_logger=False)
@app.task(name="noop")
def noop(echo=""):
    return {{"echo": echo}}
app.worker_main(["worker", "-P", "threads", "-c", "8", "-n", "stock@bench", "--loglevel", "WARNING"])
"""


def footprint(process: psutil.Process, broker: Broker, prefix: str) -> tuple[float, float, int]:
    """Return MB of PSS, percent of a core over ten idle seconds, and broker connections of a process."""
    process.cpu_percent()
    time.sleep(IDLE_SECONDS)
    busy = process.cpu_percent()
    with broker.connect() as client:
        sockets = {f"{c.laddr.ip}:{c.laddr.port}" for c in process.net_connections(kind="tcp")}
        held = [c for c in client.client_list() if c["addr"] in sockets]
    return process.memory_full_info().pss / 1e6, busy, len(held)


def round_trip(push: Callable[[], AsyncResult]) -> float:  # type: ignore[type-arg]
    """Return the median of push → result in milliseconds."""
    times = []
    for _ in range(ROUND_TRIPS):
        begun = time.perf_counter()
        push().get(timeout=30)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[ROUND_TRIPS // 10 :]) * 1000


def drain(push: Callable[[], AsyncResult], app: Celery) -> float:  # type: ignore[type-arg]
    """Return tasks per second from the first push to the last result."""
    begun = time.perf_counter()
    results = [push() for _ in range(DRAINED)]
    ResultSet(results, app=app).join_native(timeout=300)
    return DRAINED / (time.perf_counter() - begun)


def main() -> None:
    with ExitStack() as stack:
        directory, broker = stack.enter_context(benched.place())
        system, worker = stack.enter_context(benched.one_host(directory, broker))
        stock_app, stock = stack.enter_context(benched.stock(STOCK, broker))
        stock_app.send_task("noop").get(timeout=30)

        print(f"{'':28}{'Fleet':>10}{'stock':>10}{'ratio':>8}   bar")
        mine = footprint(psutil.Process(worker.process.pid), broker, "fleet")
        its = footprint(psutil.Process(stock.pid), broker, "stock")
        for name, a, b, bar in zip(
            ("idle memory, MB PSS", "idle CPU, % of a core", "broker connections"),
            mine,
            its,
            ("≤ 90", "≤ 0.5", "≤ 6"),
            strict=True,
        ):
            print(f"{name:28}{a:10.1f}{b:10.1f}{'':8}   {bar}")
        task = system.fleet.dispatcher.task("fleet.host.ping")
        ours = round_trip(lambda: task.apply_async(host="bench"))
        theirs = round_trip(lambda: stock_app.send_task("noop"))
        print(f"{'push → result, p50 ms':28}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}   ≤ 1.5")
        ours = drain(lambda: task.apply_async(host="bench"), task.app)
        theirs = drain(lambda: stock_app.send_task("noop"), stock_app)
        print(f"{'drained, tasks/s':28}{ours:10.0f}{theirs:10.0f}{ours / theirs:8.2f}   ≥ 0.7")


if __name__ == "__main__":
    main()
