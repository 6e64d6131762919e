"""How long people wait: `fleet --help`, a pushed no-op, and `fleet up` until its first task is done.

    python -m tests.bench.startup

Wall clock, after installation; `fleet up` begins with an empty state directory each time. The bars are those of
ARCHITECTURE.md; nothing fails here, since machines are shared and noisy.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import redis

from fleet import configuration, presence
from fleet.broker.connection import connect
from tests.services.ports import free_ports

ROOT = Path(__file__).parents[2]
FLEET = [sys.executable, "-m", "fleet"]


def environment(state: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "FLEET_STATE_DIR": str(state)}


def timed(*words: str, env: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run([*FLEET, *words], env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def python_alone(env: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], env=env, check=True)
    return time.perf_counter() - begun


def up_to_first_task(state: Path) -> tuple[float, float, float]:
    """Return seconds: `fleet up` to the first reply, a later `push-task --wait`, Ctrl-C to the end."""
    env = environment(state)
    broker_port, flower_port = free_ports(2)
    begun = time.perf_counter()
    words = ["up", "--host-id", "bench", "--broker-port", str(broker_port), "--flower-port", str(flower_port)]
    up = subprocess.Popen([*FLEET, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ping = ["push-task", "fleet.host.ping", "--host", "bench", "--wait"]
    while not _online(state):
        time.sleep(0.02)
    timed(*ping, env=env)
    first = time.perf_counter() - begun
    later = statistics.median(timed(*ping, env=env) for _ in range(5))
    stopped = time.perf_counter()
    up.terminate()
    up.wait()
    return first, later, time.perf_counter() - stopped


def _online(state: Path) -> bool:
    """Say whether the host's heartbeat is there; before that a push is an error."""
    settings = configuration.load(state_dir=state)
    if settings.broker_url is None:
        return False
    with suppress(redis.RedisError), connect(settings.require_broker(), name="bench") as client:
        return presence.read(client, ["bench"])["bench"] is not None
    return False


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        env = environment(Path(directory))
        helps = [timed("--help", env=env) for _ in range(10)]
        bare = [python_alone(env) for _ in range(10)]
        print(
            f"fleet --help               {statistics.median(helps) * 1000:6.0f} ms   (bar 150 ms; python alone "
            f"{statistics.median(bare) * 1000:.0f} ms)"
        )
    tries = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as directory:
            tries.append(up_to_first_task(Path(directory)))
    first, later, stop = (statistics.median(column) for column in zip(*tries, strict=True))
    print(f"fleet up → first task done {first:6.2f} s    (bar 4 s)")
    print(f"push-task … --wait, no-op  {later * 1000:6.0f} ms   (bar 600 ms)")
    print(f"Ctrl-C → all ended         {stop:6.2f} s    (bar 3 s)")


if __name__ == "__main__":
    main()
