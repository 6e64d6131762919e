"""A client that is to keep to what its principal's selectors name: other hosts are none, in all that is said."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import errors, names
from fleet.client import Fleet
from fleet.contracts import registry
from fleet.dispatch import MOST_WAITING
from fleet.settings import Settings
from tests import factories
from tests.services.broker import Broker

PING = registry.get("fleet.host.ping")
#: What may be so of a host that is out of sight.
STATES: dict[str, dict[str, Any]] = {
    "there": {"connected": True},
    "away": {"connected": False},
    "paused": {"connected": True, "availability": "paused"},
    "full": {"connected": True, "waiting": MOST_WAITING},
}


def enroll(
    client: "redis.Redis",
    host: str,
    *,
    env: str,
    connected: bool = True,
    availability: str = "active",
    waiting: int = 0,
) -> None:
    client.hset(names.HOSTS, host, factories.entry(host, labels={"env": env}, availability=availability))
    if connected:
        client.set(names.presence(host), "{}")
    if waiting:
        client.lpush(names.queue(host), *["x"] * waiting)


@pytest.fixture
def opened(broker: Broker, client: "redis.Redis", tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Open the fleet of edge-1 (env=test) for a principal of such hosts."""
    client.set(names.TRUST, factories.statement())
    enroll(client, "edge-1", env="test")
    settings = Settings(broker_url=broker.url, principal="alice", state_dir=tmp_path)
    credential = factories.ring().issue(factories.principal("alice", selectors={"env": "test"}))
    held = factories.principal_credential("alice", broker_url=broker.url).model_copy(update={"credential": credential})
    fleets: list[Fleet] = []

    def open_it(**wishes: Any) -> Fleet:
        fleets.append(Fleet(settings, credential=held, **wishes))
        return fleets[-1]

    yield open_it
    for fleet in fleets:
        fleet.close()


def said(ask: Callable[[], object], host: str) -> tuple[type, str]:
    """Return which error that raises, and what it says but for the host's name."""
    with pytest.raises(errors.FleetError) as caught:
        ask()
    return type(caught.value), str(caught.value).replace(host, "HOST")


@pytest.mark.parametrize("state", STATES)
def test_each_way_to_a_host_out_of_sight_says_what_is_said_of_none(
    opened: Callable[..., Fleet], client: "redis.Redis", state: str
) -> None:
    """Also the ways that come after a push's first look at the registry, between which a label may change."""
    enroll(client, "prod-9", env="prod", **STATES[state])
    fleet = opened(in_sight_only=True)
    ways: list[Callable[[str], object]] = [
        lambda host: fleet.push(PING, on=host),
        lambda host: fleet.push(PING, on=["edge-1", host], offline="skip"),
        lambda host: fleet.dispatcher.require_host(host, PING, queues=False),
        lambda host: fleet.dispatcher.require_host(host, PING, queues=True),
        lambda host: fleet.cancel(names.new_run_id(host)),
        lambda host: fleet.approve(names.new_run_id(host), digest="x"),
        lambda host: fleet.deny(names.new_run_id(host), digest="x"),
    ]
    for number, way in enumerate(ways):
        hidden = said(lambda way=way: way("prod-9"), "prod-9")  # type: ignore[misc]
        assert hidden == said(lambda way=way: way("zzzz"), "zzzz"), number  # type: ignore[misc]
        assert "prod-9" not in said(lambda way=way: way("prod-99"), "prod-99")[1], number  # type: ignore[misc]
        assert "did you mean 'edge-1'?" in said(lambda way=way: way("edge-11"), "edge-11")[1], number  # type: ignore[misc]
    assert [target.host for target in fleet.targets(all_hosts=True)] == ["edge-1"]
    assert client.llen(names.queue("edge-1")) == client.llen(names.control("prod-9")) == 0


def test_whoever_reads_the_registry_itself_is_told_what_stands_in_the_way(
    opened: Callable[..., Fleet], client: "redis.Redis"
) -> None:
    enroll(client, "prod-9", env="prod")
    fleet = opened()
    assert said(lambda: fleet.push(PING, on="prod-9"), "prod-9")[0] is errors.NotPermitted
    assert "did you mean 'prod-9'?" in said(lambda: fleet.push(PING, on="prod-99"), "x")[1]
    assert "did you mean 'prod-9'?" in said(lambda: fleet.cancel(names.new_run_id("prod-99")), "x")[1]
    assert [target.host for target in fleet.targets(all_hosts=True)] == ["edge-1", "prod-9"]
    assert client.llen(names.queue("prod-9")) == 0
