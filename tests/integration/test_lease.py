"""The lease: one holder at a time, for a bounded time, on both brokers."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from beat.lease import Lease
from fleet.broker.connection import connect
from tests.services.broker import Broker
from tests.services.freezing import frozen
from tests.services.waiting import until

KEY = "fleet:control:lease"
#: Believed in for half a second.
SHORT = timedelta(seconds=2.5)


@pytest.fixture
def caller(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


def test_of_two_one_holds_it_and_the_other_gets_it_when_it_is_released(caller: "redis.Redis") -> None:
    first, second = Lease(caller, key=KEY), Lease(caller, key=KEY)
    assert not first.held()
    began = time.monotonic()
    assert first.attempt()
    assert first.held()
    assert not second.attempt()
    assert not second.held()
    assert caller.get(KEY) == first.token
    assert 9_900 - 1000 * (time.monotonic() - began) < caller.pttl(KEY) <= 10_000
    second.release()
    assert caller.get(KEY) == first.token, "only its holder can release it"
    first.release()
    assert not first.held()
    assert second.attempt()


def test_of_many_at_once_one_gets_it(any_broker: Broker) -> None:
    begin = threading.Barrier(10)

    def contend(_: int) -> bool:
        with connect(any_broker.address, name="contender") as client:
            lease = Lease(client, key=KEY)
            begin.wait()
            return lease.attempt()

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(contend, range(10))) == 1


def test_renewing_keeps_it_beyond_its_time(caller: "redis.Redis") -> None:
    lease, other = Lease(caller, key=KEY), Lease(caller, key=KEY)
    assert lease.attempt()
    for _ in range(5):
        caller.pexpire(KEY, 1)
        caller.set(KEY, lease.token, px=timedelta(seconds=10))
        assert lease.attempt()
        assert not other.attempt()
    assert lease.held()


def test_it_is_not_believed_in_for_as_long_as_the_broker_keeps_it(caller: "redis.Redis") -> None:
    lease, other = Lease(caller, key=KEY, ttl=SHORT), Lease(caller, key=KEY)
    assert lease.attempt()

    def gives_up() -> bool:
        left: Any = caller.pttl(KEY)  # looked at first: no more than this is left while it is believed in
        believed = lease.held()
        assert not believed or left > 1_900, "before the broker lets go"
        return not believed

    until(gives_up, "the holder gives up by itself")
    until(lambda: not caller.exists(KEY), "it has run out")
    assert other.attempt()
    assert not lease.attempt()
    assert not lease.held()


def test_one_whose_key_was_taken_does_not_take_it_back(caller: "redis.Redis") -> None:
    lease = Lease(caller, key=KEY)
    assert lease.attempt()
    caller.set(KEY, "another")
    assert not lease.attempt()
    assert not lease.held()
    lease.release()
    assert caller.get(KEY) == "another"


def test_one_whose_key_was_lost_takes_it_again(caller: "redis.Redis") -> None:
    lease = Lease(caller, key=KEY)
    assert lease.attempt()
    caller.flushall()
    assert lease.attempt()
    assert caller.get(KEY) == lease.token


def test_while_the_broker_is_away_it_is_believed_in_until_its_own_deadline(broker: Broker) -> None:
    with connect(broker.address, name="holder") as client:
        lease = Lease(client, key=KEY, ttl=SHORT)
        assert lease.attempt()
        broker.stop(kill=True)
        with pytest.raises(redis.ConnectionError):
            lease.attempt()
        until(lambda: not lease.held(), "it gives up by itself")
        broker.start()
        assert lease.attempt()


FROZEN = """
import sys
from datetime import timedelta
from beat.lease import Lease
from fleet import address
from fleet.broker.connection import connect

lease = Lease(connect(address.parse(sys.argv[1]), name="frozen"), key=sys.argv[2], ttl=timedelta(seconds=2.5))
while not (lease.attempt() and lease.held()):  # it may take longer to ask than it is believed in
    pass
print("held", flush=True)
sys.stdin.readline()  # frozen here
print(lease.held(), lease.attempt(), lease.held(), flush=True)
lease.release()
"""


def test_a_holder_that_was_frozen_wakes_up_without_it(any_broker: Broker, caller: "redis.Redis") -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FROZEN, any_broker.url, KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with frozen(process.pid):
        other = Lease(caller, key=KEY)
        until(other.attempt, "another takes over")
    said, _ = process.communicate("go\n", timeout=30)
    assert said == "False False False\n"
    assert caller.get(KEY) == other.token
    assert other.held()
