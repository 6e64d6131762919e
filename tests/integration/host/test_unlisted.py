"""Unlisted hosts: they carry out what is pushed to them, and tell nobody that they are there and what they run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
import redis

from fleet import clock, db, errors, inventory, names, presence
from fleet.contracts.presence import Presence
from tests.integration.host.test_sessions import elsewhere, says
from tests.services.docker import IMAGE
from tests.services.private_engine import PrivateEngine
from tests.services.system import Part, System
from tests.services.waiting import until

#: The database has no part in this.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
#: What a host says of itself: its keys as they are written, and what Flower hears.
_OF_ITSELF = ("__keyspace@0__:fleet:presence:*", "__keyspace@0__:fleet:inventory:*", "/h-*")


class Listener:
    """Hears what becomes of the keys of hosts, and what they tell Flower."""

    def __init__(self, client: "redis.Redis") -> None:
        self._subscription = client.pubsub(ignore_subscribe_messages=True)
        self._subscription.psubscribe(*_OF_ITSELF)

    def heard(self) -> set[str]:
        """Return the patterns that something was heard of since the last time."""
        found = set()
        while message := self._subscription.get_message(timeout=0.2):
            # an unlisted host makes sure that nothing of it is left, and that is no sign of life for anybody
            if message["data"] not in {"del", "expired", "expire"}:
                found.add(str(message["pattern"]))
        return found

    def close(self) -> None:
        self._subscription.close()


@contextmanager
def listener(system: System) -> Iterator[Listener]:
    system.redis.config_set("notify-keyspace-events", "KEA")
    opened = Listener(system.redis)
    try:
        yield opened
    finally:
        opened.close()
        system.redis.config_set("notify-keyspace-events", "")


def start_unlisted(system: System, host: str, **environment: str) -> Part:
    part = system.run("worker", "--host-id", host, "--unlisted", **environment)
    says(part, "worker.started")
    return part


@pytest.mark.docker
def test_it_does_what_is_pushed_and_writes_no_key_that_says_that_it_is_there(
    system: System, docker_engine: PrivateEngine, docker_client: docker.DockerClient
) -> None:
    docker_client.containers.run(IMAGE, ["sleep", "600"], name="web", detach=True)
    system.start_control()
    system.enroll("h1")
    url = {"FLEET_DOCKER_URL": docker_engine.url}
    with listener(system) as ears:
        listed = system.start_worker("h1", **url)  # all of it is heard of this one
        until(lambda: system.events("inventory.synced"), "its containers are on record")
        until(lambda: system.redis.exists(names.inventory("h1")), "its containers can be read")
        heard: set[str] = set()
        until(lambda: heard.update(ears.heard()) or heard == set(_OF_ITSELF), "its keys and events are heard of")
        assert listed.stop() == 0
        until(lambda: system.events("host.deregistered"), "its last word is on record")
        system.redis.delete(names.inventory("h1"))  # what three minutes do
        ears.heard()
        recorded = len(system.events("inventory.synced"))

        unlisted = start_unlisted(system, "h1", **url)
        with pytest.raises(errors.HostNotConnected):
            system.fleet.push("fleet.host.ping", on="h1")
        pushed = system.fleet.push("fleet.containers.restart", on="h1", arguments={"container": "web"}, offline="queue")
        assert pushed.results[0].get(timeout=30)["container"]["state"] == "running"
        docker_client.containers.run(IMAGE, ["true"], detach=True)  # something to tell
        again = system.fleet.push("fleet.containers.list", on="h1", offline="queue").results[0].get(timeout=30)
        assert "web" in {container["name"] for container in again["containers"]}
        system.record(pushed.run_ids[0], state="succeeded")

        assert ears.heard() == set()
        assert not list(system.redis.scan_iter("fleet:presence:*")) + list(system.redis.scan_iter("fleet:inventory:*"))
        assert unlisted.stop() == 0
        assert ears.heard() == set()
    assert len(system.events("inventory.synced")) == recorded
    assert system.events("inventory.changed") == []
    with db.session(system.engine, write=False) as session:
        assert inventory.host(session, "h1").facts == {"unlisted": True}
        assert inventory.containers(session, host="h1") == []


def test_it_is_shown_as_unlisted_until_it_signs_off(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    worker = start_unlisted(system, "h1")
    until(lambda: system.events("host.registered"), "its registration is on record")
    assert '"presence": "unlisted"' in system.command("host", "list", "-o", "json", "--presence", "unlisted").stdout
    assert "unlisted" in system.command("host", "list").stdout

    assert worker.stop() == 0
    until(lambda: system.events("host.deregistered"), "its end is on record")
    with db.session(system.engine, write=False) as session:
        assert presence.of(inventory.host(session, "h1"), None, clock.now()) is Presence.OFFLINE


def test_it_can_be_listed_again(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    assert start_unlisted(system, "h1").stop() == 0
    system.start_worker("h1")
    until(lambda: len(system.events("host.registered")) == 2, "its registration is on record")
    with db.session(system.engine, write=False) as session:
        assert inventory.host(session, "h1").facts["hostname"]
    assert system.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)["host"] == "h1"


def test_of_two_workers_the_newer_one_wins_and_nothing_runs_twice(system: System, tmp_path: Path) -> None:
    system.start_control()
    system.enroll("h1")
    first = start_unlisted(system, "h1")
    waiting = [system.fleet.push("fleet.host.ping", on="h1", offline="queue").run_ids[0] for _ in range(20)]
    second = elsewhere(system, "h1", tmp_path / "elsewhere", FLEET_UNLISTED="true")
    says(second, "worker.started")
    waiting += [system.fleet.push("fleet.host.ping", on="h1", offline="queue").run_ids[0] for _ in range(20)]
    assert first.process.wait(60) == os.EX_TEMPFAIL
    for run_id in waiting:
        system.record(run_id, state="succeeded")
        assert [event.event for event in system.life(run_id)].count("run.succeeded") == 1


def test_a_daemon_keeps_to_itself_as_well(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    try:
        started = system.command("worker", "start", "--host-id", "h1", "--unlisted")
        assert started.returncode == 0, started.stderr
        pushed = system.fleet.push("fleet.host.ping", on="h1", offline="queue")
        assert pushed.results[0].get(timeout=30)["host"] == "h1"
        assert system.heartbeat("h1") is None
    finally:
        assert system.command("worker", "stop", "--host-id", "h1").returncode == 0
