"""What a process of its own costs a run: from the worker's call to the function's first line, and to its reply.

    python -m tests.bench.children

Aimed at 15 ms to the first line. Nothing fails here, since machines are shared and noisy.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

from tests.services import offered

RUNS = 200
THREADS = 8
ROOT = Path(__file__).parents[2]


def main() -> None:
    sys.path.insert(0, str(offered.PATH))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(offered.PATH), str(ROOT)])
    from workers.host.children import Children
    from workers.host.job import Job

    with tempfile.TemporaryDirectory() as directory:
        children = Children(Path(directory) / "spool", docker_url="unix:///nonexistent.sock", memory_bytes=2**30)

        def run() -> tuple[float, float]:
            """Return the seconds to the first line, and to the reply."""
            job = Job(
                run_id=f"bench:{uuid.uuid4()}",
                attempt=1,
                task="offered.say_when",
                arguments={"log": ""},
                host="bench",
                description="",
                metadata={},
                submitted_by="bench",
                soft_seconds=None,
                hard_seconds=60.0,
            )
            begun = time.monotonic()
            ending = children.run(job, on_progress=lambda _step, _percent: None)
            ended = time.monotonic()
            assert ending is not None
            assert ending.reply is not None, ending
            children.forget(job.run_id, job.attempt)
            return float(ending.reply["said"]) - begun, ended - begun

        begun = time.monotonic()
        children.start()
        print(f"zygote           {1000 * (time.monotonic() - begun):6.1f} ms, once")
        took = [run() for _ in range(RUNS)]
        for name, times in (("first line", [first for first, _ in took]), ("reply", [last for _, last in took])):
            p50, p95 = (1000 * statistics.quantiles(times, n=20)[index] for index in (9, 18))
            print(f"{name:16} {p50:6.1f} ms p50, {p95:.1f} ms p95")
        threads = [threading.Thread(target=lambda: [run() for _ in range(RUNS // 4)]) for _ in range(THREADS)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{THREADS} at once        {THREADS * (RUNS // 4) / (time.monotonic() - begun):6.0f} runs/s")
        children.close()


if __name__ == "__main__":
    main()
