"""What a push by REST costs, beside stock Flower's REST API before a stock worker, on the same broker in the same run.

    python -m tests.bench.rest

One request pushes, a second one waits for the result; Fleet's first answer comes when the push is on record in the
database. Nothing fails here, since machines are shared and noisy.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import requests

from fleet import environment
from tests.services import benched
from tests.services.broker import Broker
from tests.services.ports import free_port
from tests.services.rest import serve_rest
from tests.services.waiting import until

STOCK = """
from celery import Celery
app = Celery("stock", broker="{url}", backend="{url}")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)

@app.task(name="echo")
def echo(text):
    return {{"echo": text}}

app.worker_main(["worker", "--pool", "threads", "--concurrency", "8", "--loglevel", "ERROR"])
"""
ROUNDS = 200


@contextmanager
def flower(broker: Broker) -> Iterator[str]:
    """Run stock Flower with its REST API, and give its address."""
    port = free_port()
    celery = [sys.executable, "-m", "celery", "--broker", broker.url, "--result-backend", broker.url]
    with subprocess.Popen(
        [*celery, "flower", "--address=127.0.0.1", f"--port={port}", "--logging=error"],
        env=environment.inherited(FLOWER_UNAUTHENTICATED_API="true"),
    ) as process:

        def answers() -> bool:
            try:
                return requests.get(f"http://127.0.0.1:{port}/healthcheck", timeout=5).ok
            except requests.ConnectionError:
                return False

        until(answers, "Flower answers", timeout=60)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def milliseconds(session: requests.Session, push: Any, result: Any) -> tuple[float, float]:
    """Return the median of a push, and of a push with its result."""
    pushes, wholes = [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        pushed = push(session)
        pushes.append(time.perf_counter() - begun)
        result(session, pushed)
        wholes.append(time.perf_counter() - begun)
    return median(pushes) * 1000, median(wholes) * 1000


def checked(answer: requests.Response) -> Any:
    answer.raise_for_status()
    return answer.json()


def main() -> None:
    with ExitStack() as stack:
        directory, broker = stack.enter_context(benched.place())
        system, _worker = stack.enter_context(benched.one_host(directory, broker))
        rest = stack.enter_context(serve_rest(system))
        stock_app, _stock = stack.enter_context(benched.stock(STOCK, broker))
        stock_app.send_task("echo", ["up"]).get(timeout=30)
        theirs = stack.enter_context(flower(broker))
        session = stack.enter_context(requests.Session())
        mine = {"Authorization": f"Bearer {rest.token()}"}
        body = {"agent_id": "bench", "task": "fleet.host.ping", "arguments": {"echo": "hi"}}

        def push(session: requests.Session) -> str:
            answer = session.post(f"{rest.url}/api/admin/push-task", json=body, headers=mine, timeout=60)
            return str(checked(answer)["task_id"])

        def result(session: requests.Session, run: str) -> None:
            url = f"{rest.url}/api/runs/{run}?wait_seconds=30"
            assert checked(session.get(url, headers=mine, timeout=60))["state"] == "succeeded"

        def send(session: requests.Session) -> str:
            return str(
                checked(session.post(f"{theirs}/api/task/send-task/echo", json={"args": ["hi"]}, timeout=60))["task-id"]
            )

        def fetch(session: requests.Session, task: str) -> None:
            url = f"{theirs}/api/task/result/{task}?timeout=30"  # also where it waits, it may say what was before
            while checked(session.get(url, timeout=60))["state"] != "SUCCESS":
                pass

        print(f"{'p50 in ms':28}{'Fleet':>10}{'Flower':>10}{'ratio':>8}")
        ours, stock = milliseconds(session, push, result), milliseconds(session, send, fetch)
        for name, mine_ms, their_ms in zip(("push", "push → result"), ours, stock, strict=True):
            print(f"{name:28}{mine_ms:10.2f}{their_ms:10.2f}{mine_ms / their_ms:8.2f}")


if __name__ == "__main__":
    main()
