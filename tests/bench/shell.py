"""What a command costs on a host, beside `subprocess.run` in a task of stock Celery on the same broker in the same run.

    python -m tests.bench.shell

Both run /bin/true, from push to result, and programs that write something; then what masking costs. Nothing fails here,
since machines are shared and noisy.
"""

import base64
import os
import time
from contextlib import ExitStack

from fleet.masking import Masker
from tests.bench.worker import round_trip
from tests.services import benched
from tests.services.office import list_programs

STOCK = """
import subprocess
from celery import Celery
app = Celery("stock", broker="{url}", backend="{url}")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)

@app.task(name="run")
def run(argv):
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    return {{"exit_code": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}}

app.worker_main(["worker", "--pool", "threads", "--concurrency", "8", "--loglevel", "ERROR"])
"""
PIECES = 1600  # 100 MiB
PROGRAMS = {
    "/bin/true": ["/bin/true"],
    "/bin/echo, with output": ["/bin/echo", "hello"],
    "200 kB of output": ["/usr/bin/seq", "35000"],
}


def main() -> None:
    with ExitStack() as stack:
        directory, broker = stack.enter_context(benched.place())
        system, _worker = stack.enter_context(benched.one_host(directory, broker))
        list_programs(system, *PROGRAMS.values(), host="bench")
        stock_app, _stock = stack.enter_context(benched.stock(STOCK, broker))
        stock_app.send_task("run", [["/bin/true"]]).get(timeout=30)

        task = system.fleet.dispatcher.task("fleet.shell.run")
        print(f"{'p50 in ms':28}{'Fleet':>10}{'stock':>10}{'ratio':>8}")
        ping = system.fleet.dispatcher.task("fleet.host.ping")
        ours = round_trip(lambda: ping.apply_async(host="bench"))
        print(f"{'(nothing: a ping)':28}{ours:10.2f}")
        for name, argv in PROGRAMS.items():
            ours = round_trip(lambda argv=argv: task.apply_async(kwargs={"argv": argv}, host="bench"))  # type: ignore[misc]
            theirs = round_trip(lambda argv=argv: stock_app.send_task("run", [argv]))  # type: ignore[misc]
            print(f"{name:28}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}")
        for secrets in (1, 5, 50):
            stream = Masker([base64.urlsafe_b64encode(os.urandom(32)) for _ in range(secrets)]).stream()
            piece = b"2026-01-01T00:00:00Z INFO run.started host=web-1 attempt=1\n" * 1111
            begun = time.perf_counter()
            for _ in range(PIECES):
                stream.feed(piece)
            speed = PIECES * len(piece) / 1e6 / (time.perf_counter() - begun)
            print(f"masking {secrets:2} secrets{speed:20.0f} MB/s")


if __name__ == "__main__":
    main()
