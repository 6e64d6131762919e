"""The epoch: one session of a host at a time, each with a number of its own."""

import threading
from datetime import UTC, datetime
from typing import Any

from fleet import names
from fleet.contracts.presence import PRESENCE_TTL, Heartbeat
from tests.services.broker import Broker
from workers.host.epoch import Taken, take


def beat(client: Any, epoch: int) -> None:
    """Write the heartbeat of a session."""
    heartbeat = Heartbeat(
        host="h1",
        at=1_750_000_000.0,
        epoch=epoch,
        version="0.1.0",
        address="h1",
        port=8000,
        pid=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        loop_age_seconds=0.1,
        in_hand=0,
        queue_length=0,
        docker_reachable=True,
    )
    client.set(names.presence("h1"), heartbeat.model_dump_json(), ex=PRESENCE_TTL)


def test_the_first_session_takes_one_and_each_next_one_a_number_more(client: Any) -> None:
    assert take(client, "h1", known=0) == Taken(1, superseded=False)
    assert take(client, "h1", known=1) == Taken(2, superseded=False)
    assert client.get(names.epoch("h1")) == "2"


def test_a_session_that_lives_elsewhere_keeps_its_place(client: Any) -> None:
    take(client, "h1", known=0)
    beat(client, 1)
    assert take(client, "h1", known=0) is None
    assert client.get(names.epoch("h1")) == "1"


def test_a_session_elsewhere_is_superseded_once_its_heartbeat_is_gone(client: Any) -> None:
    take(client, "h1", known=0)
    beat(client, 1)
    client.delete(names.presence("h1"))
    assert take(client, "h1", known=0) == Taken(2, superseded=True)


def test_ones_own_former_session_is_followed_at_once_though_its_heartbeat_is_still_there(client: Any) -> None:
    take(client, "h1", known=0)
    beat(client, 1)
    assert take(client, "h1", known=1) == Taken(2, superseded=False)


def test_a_session_elsewhere_that_took_a_number_and_has_not_shown_itself_yet_is_no_obstacle(client: Any) -> None:
    client.set(names.epoch("h1"), 7)  # killed before its first heartbeat, say
    beat(client, 3)  # my own last one
    assert take(client, "h1", known=3) == Taken(8, superseded=True)


def test_a_broker_that_lost_its_disk_gives_out_no_number_twice(client: Any) -> None:
    assert take(client, "h1", known=41) == Taken(42, superseded=False)


def test_of_many_that_come_at_the_same_time_no_two_get_the_same_number(broker: Broker) -> None:
    taken: list[Taken | None] = []
    barrier = threading.Barrier(8)

    def come() -> None:
        with broker.connect() as client:
            barrier.wait()
            taken.append(take(client, "h1", known=0))

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.number for each in taken if each) == list(range(1, 9))
