"""What ten thousand broker users cost: hosts, with the rules of `fleet.security.acl`, on Valkey and on Redis 7.

    python -m tests.bench.acl

Half of the lines are of a broker that starts with an ACL file of them, half of one that gets them by command, as a
control worker brings them in after a start without a file. A broker does nothing else during one command or one part
of a pipeline; "halt" is the longest that a PING beside it had to wait.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Self

import redis

from fleet import address
from fleet.broker.connection import connect
from fleet.security import acl, broker_users
from tests.services.broker import ADMIN, ADMIN_PASSWORD, Broker, serve

USERS = 10_000
HASH = "ab" * 32
KINDS = ("valkey", "redis")
#: what was measured → how it is shown, by kind of broker
Table = dict[str, dict[str, str]]


class Beside:
    """Asks the broker all the time, and knows how long it once had to wait."""

    def __init__(self, broker: Broker) -> None:
        self._client = patient(broker)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._client.ping()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.connection_pool.disconnect()

    def _ask(self) -> None:
        while not self._over.wait(0.001):
            begun = time.perf_counter()
            self._client.ping()
            self.longest = max(self.longest, time.perf_counter() - begun)


def patient(broker: Broker) -> "redis.Redis":
    found = address.parse(broker.url_for(ADMIN, ADMIN_PASSWORD))
    return connect(found, name="bench", timeout=timedelta(seconds=120))


@contextmanager
def served(kind: str) -> Iterator[Broker]:
    with tempfile.TemporaryDirectory() as directory:
        serving = serve(kind, Path(directory))
        try:
            yield next(serving)
        finally:
            next(serving, None)


def measure(kind: str, table: Table) -> None:
    users = {user.name: user for user in (acl.host(f"host-{number}", [HASH]) for number in range(USERS))}

    def note(line: str, text: str) -> None:
        table.setdefault(line, {})[kind] = text

    def timed(broker: Broker, line: str, act: Callable[[], object]) -> None:
        with Beside(broker) as beside:
            begun = time.perf_counter()
            act()
            took = time.perf_counter() - begun
        note(line, f"{took * 1000:,.1f} ms, halt {beside.longest * 1000:,.0f}")

    with served(kind) as broker:
        client = patient(broker)
        version = client.info("server")["redis_version"]
        empty = client.info("memory")["used_memory"]
        timed(broker, "by command: all of them", lambda: broker_users.apply(client, users.values()))
        note("by command: memory for each", f"{(client.info('memory')['used_memory'] - empty) / USERS / 1000:.1f} KB")
        timed(broker, "by command: one more", lambda: broker_users.apply(client, [acl.host("new", [HASH])]))
        timed(broker, "by command: reconcile, nothing new", lambda: broker_users.reconcile(client, users))
        timed(broker, "by command: cut one off", lambda: broker_users.cut(client, "h-host-0"))
        timed(broker, "by command: first ACL SAVE", lambda: broker_users.save(client))
        broker_users.apply(client, [acl.host("new", [HASH])])
        timed(broker, "by command: ACL SAVE after one more", lambda: broker_users.save(client))
        client.connection_pool.disconnect()

    with served(kind) as broker:
        broker.stop()
        file = broker.directory / "users.acl"
        with file.open("a") as lines:
            lines.writelines(f"{user.known_to(version).line}\n" for user in users.values())
        note("by file: its size", f"{file.stat().st_size / 1e6:.1f} MB")
        begun = time.perf_counter()
        broker.start()
        note("by file: start of the broker", f"{(time.perf_counter() - begun) * 1000:,.1f} ms")
        client = patient(broker)
        timed(broker, "by file: one more", lambda: broker_users.apply(client, [acl.host("new", [HASH])]))
        timed(broker, "by file: first ACL SAVE", lambda: broker_users.save(client))
        timed(broker, "by file: second ACL SAVE", lambda: broker_users.save(client))
        client.connection_pool.disconnect()


def main() -> None:
    table: Table = {}
    for kind in KINDS:
        measure(kind, table)
    print(f"{f'{USERS:,} users':40}{'Valkey':>26}{'Redis 7.0':>26}")
    for line, values in table.items():
        print(f"{line:40}" + "".join(f"{values[kind]:>26}" for kind in KINDS))


if __name__ == "__main__":
    main()
