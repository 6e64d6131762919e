"""Keys, passwords and membership change under a worker that goes on working, or ends, as it should."""

import os
import time

import pytest

from fleet import db, errors, inventory, names
from fleet.client import Fleet
from fleet.security.acl import HOST_PREFIX
from tests.services.system import System
from tests.services.waiting import until


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def host(system: System) -> str:
    system.start_control()
    system.enroll("h1")
    system.start_worker("h1")
    return "h1"


def works(fleet: Fleet) -> bool:
    (outcome,) = fleet.push("fleet.host.ping", on="h1").wait(timeout=30)
    return outcome.state == "succeeded"


def command(system: System, *words: str) -> None:
    done = system.command(*words)
    assert done.returncode == 0, done.stderr


def keys(system: System) -> tuple[list[str], list[str]]:
    """Return the public keys and password hashes of h1 that count."""
    with db.session(system.engine, write=False) as session:
        found = inventory.host(session, "h1")
        return list(found.keys), list(found.broker_hashes)


def passwords(system: System) -> set[str]:
    """Return the hashes of the passwords by which h1 is let in at the broker."""
    return set(system.redis.acl_getuser(f"{HOST_PREFIX}h1")["passwords"])


def test_a_host_changes_its_key_and_its_password_under_way(system: System, host: str) -> None:
    assert works(system.fleet)
    (former,), (former_hash,) = keys(system)
    assert passwords(system) == {former_hash}
    system.parts[-1].stop()
    (waiting,) = system.fleet.push("fleet.host.ping", on=host, offline="queue").results  # signed for the former key
    system.start_worker(host)
    command(system, "host", "rotate", host)
    until(lambda: former not in keys(system)[0], "the former key counts no more")
    (new,), (new_hash,) = keys(system)
    assert new != former
    assert new_hash != former_hash
    until(lambda: passwords(system) == {new_hash}, "only the new password counts")
    assert waiting.get(timeout=30)["host"] == host
    until(lambda: works(system.fleet), "pushes are for the new key")
    assert [event.data["key"] for event in system.events("host.credential_taken")][-1] == new
    assert system.events("report.refused") == []
    system.parts[-1].stop()
    system.start_worker(host)
    assert works(system.fleet), "the next session goes by what was kept"


def test_the_fleets_and_a_principals_keys_change_under_way(system: System, host: str) -> None:
    before = system.fleet
    assert works(before)
    command(system, "principal", "rotate", "alice", "--overlap", "10m")
    assert works(before), "by the former file, for a while"
    with Fleet(system.settings) as after:
        assert works(after)
        command(system, "key", "rotate")
        assert works(after)
        system.await_heartbeat(host)  # since the key was made
        command(system, "--yes", "key", "retire")
        until(lambda: works(after), "it has heard of the new key before it was alone")
    assert system.events("message.refused") == []
    system.parts[-1].stop()
    system.start_worker(host)
    with Fleet(system.settings) as later:
        assert works(later)


def test_a_host_that_is_put_out_ends_within_two_seconds_and_does_not_come_back(system: System, host: str) -> None:
    worker = system.parts[-1]
    assert works(system.fleet)
    command(system, "--yes", "host", "revoke", host)
    begun = time.monotonic()
    assert worker.process.wait(30) == os.EX_NOPERM
    assert time.monotonic() - begun < 25  # two on an idle machine
    assert "host.revoked" in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()
    with pytest.raises(errors.HostNotEnrolled):
        system.fleet.push("fleet.host.ping", on=host, offline="queue")
    again = system.run("worker", "--host-id", host)
    assert again.process.wait(30) != 0
    assert "Traceback" not in again.log.read_text()
    assert system.redis.keys(f"fleet:h:{host}:*") == [names.epoch(host)], "whoever gets the name goes on counting"
    assert not system.redis.exists(names.presence(host))


def test_another_machine_that_gets_the_name_inherits_nothing(system: System, host: str) -> None:
    command(system, "host", "label", host, "env=prod")
    (former,), _hashes = keys(system)
    command(system, "--yes", "host", "revoke", host)
    system.parts[-1].process.wait(30)
    theirs = system.settings.host_dir(host)
    theirs.rename(theirs.with_name("the-former-machine"))
    system.enroll(host)
    with db.session(system.engine, write=False) as session:
        assert inventory.host(session, host).labels == {}
    assert keys(system)[0] != [former]
    system.start_worker(host)
    until(lambda: works(system.fleet), "it works")
    theirs.rename(theirs.with_name("the-new-machine"))
    theirs.with_name("the-former-machine").rename(theirs)
    refused = system.run("worker", "--host-id", host)
    assert refused.process.wait(30) != 0
    assert "Traceback" not in refused.log.read_text()
