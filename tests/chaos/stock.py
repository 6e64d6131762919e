"""Stock Celery as the subject: what a user would pick instead, with the settings that its documentation recommends.

A worker with a threads pool of 8, `acks_late`, `task_reject_on_worker_lost`, prefetch 1, on the same kind of broker.
The visibility timeout is 15 s here instead of an hour, so that redelivery can be waited for at all.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery

from tests.chaos.servers import Server
from tests.chaos.tally import Tally, effects, wait_for_effect
from tests.services.waiting import until

#: Redelivery takes the visibility timeout and up to 100 s between two looks at it.
VISIBILITY_SECONDS = 15
PATIENCE = 135.0

_PROGRAM = """
import os, select, sys
from celery import Celery
url, prefix, queue = sys.argv[1:4]
app = Celery("stock", broker=url, backend=url)
app.conf.update(
    task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1, task_default_queue=queue,
    broker_transport_options={{"visibility_timeout": {visibility}, "global_keyprefix": prefix}},
    result_backend_transport_options={{"global_keyprefix": prefix}}, broker_connection_retry_on_startup=True,
)
@app.task(name="effect", bind=True)
def effect(self, log="", seconds=0.0):
    line = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(line, f"{{self.request.id}} 1\\n".encode())
    os.close(line)
    select.select([], [], [], seconds)  # libfaketime breaks time.sleep
    return "done"
@app.task(name="kill_worker", bind=True)
def kill_worker(self, log="", seconds=0.0):
    os.kill(os.getpid(), 9)
app.worker_main(["worker", "-P", "threads", "-c", "8", "-n", "stock-" + queue + "@chaos", "--loglevel", "WARNING"])
"""


class StockHost:
    """One stock worker on a queue and under a prefix of its own."""

    def __init__(self, directory: Path, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.log = directory / f"effects-{name}"
        self._output = directory / f"stock-{name}.log"
        self._url = server.broker.url
        self._prefix = f"{name}:"
        self._app = Celery(name, broker=self._url, set_as_current=False)
        self._app.conf.update(
            task_ignore_result=True,
            broker_transport_options={"global_keyprefix": self._prefix, "socket_timeout": 5},
            broker_connection_retry=False,
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        self.attempted = 0
        self.pushed: list[str] = []
        self.environment: dict[str, str] = {}
        self.prefix: list[str] = []

    @property
    def queue_key(self) -> str:
        return f"{self._prefix}{self.name}"

    def start(self) -> float:
        begun = time.monotonic()
        program = _PROGRAM.format(visibility=VISIBILITY_SECONDS)
        with self._output.open("ab") as output:
            self.processes.append(
                subprocess.Popen(
                    [*self.prefix, sys.executable, "-c", program, self._url, self._prefix, self.name],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            )
        return begun

    def start_and_wait(self) -> None:
        self.start()
        known = self.effects()
        probe = self._app.send_task("effect", kwargs={"log": str(self.log)}, queue=self.name)
        until(lambda: self.effects() > known, f"stock worker {self.name} runs ({probe.id})", timeout=60)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        return self.processes[-1]

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def push(self, name: str = "effect", **arguments: Any) -> str | None:
        options = {key: arguments.pop(key) for key in ("expires",) if key in arguments}
        self.attempted += 1
        try:
            result = self._app.send_task(
                name, kwargs={"log": str(self.log), **arguments}, queue=self.name, retry=False, **options
            )
        except Exception:  # noqa: BLE001 - kombu raises what it likes when the broker is away
            return None
        self.pushed.append(result.id)
        return str(result.id)

    def push_many(self, count: int, random_: random.Random, *, longest: float = 0.2) -> list[str]:
        return [run for _ in range(count) if (run := self.push(seconds=random_.uniform(0, longest)))]

    def effects(self) -> int:
        return sum(effects(self.log).values())

    def wait_for_effect(self, since: float, *, more_than: int, timeout: float = PATIENCE) -> float | None:
        """Return how many seconds after `since` there were more effects than that; None where none came in time."""
        return wait_for_effect(self, since, more_than=more_than, timeout=timeout)

    def judge(self, *, patience: float = PATIENCE, never: frozenset[str] = frozenset()) -> Tally:
        """Wait for the effects of all that was pushed, and for copies that may come after them, and count."""
        deadline = time.monotonic() + patience
        wanted = [run for run in self.pushed if run not in never]
        while time.monotonic() < deadline:
            lines = effects(self.log)
            if all(lines[run] for run in wanted):
                break
            if self.processes and self.process.poll() is not None:
                self.start()  # as its supervisor would
            time.sleep(0.5)
        lines = effects(self.log)
        return Tally(
            attempted=self.attempted,
            acknowledged=len(self.pushed),
            ok=sum(lines[run] == 1 for run in wanted),
            lost=sum(lines[run] == 0 for run in wanted),
            duplicated=sum(lines[run] > 1 for run in wanted),
            wrong=sum(lines[run] > 0 for run in never),
        )

    def end(self) -> None:
        self._app.close()
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class StockArena:
    """Stock workers on one broker."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.directory = directory
        self.server = server
        self.hosts: list[StockHost] = []

    def host(self, name: str) -> StockHost:
        made = StockHost(self.directory, self.server, name)
        self.hosts.append(made)
        return made


@contextmanager
def arena(**options: Any) -> Iterator[StockArena]:
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="stock-chaos-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = Server(directory / "broker", **options)
        stack.callback(server.end)
        made = StockArena(directory, server)
        yield_hosts = made.hosts
        stack.callback(lambda: [host.end() for host in yield_hosts])
        yield made
