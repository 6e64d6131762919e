"""What a worker says at its start of what it may do to its host, and what switches commands and files off."""

import json

from tests.services.system import System
from tests.services.waiting import until


def test_a_worker_warns_people_once_and_programs_by_fields(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    people = system.start_worker("h1")
    said = people.log.read_text()
    assert said.count("What the fleet may do to h1 by this worker: ") == 1
    assert said.count("host.entrusted") == 1
    assert said.index("What the fleet may do") < said.index("worker.started")
    assert people.stop() == 0

    programs = system.start_worker("h1", FLEET_LOG_FORMAT="json", FLEET_SHELL="false")
    events = [json.loads(line) for line in programs.log.read_text().splitlines()]
    [told] = [event for event in events if event["event"] == "host.entrusted"]
    assert told["level"] == "warning"
    assert (told["host"], told["shell"], told["recorded"]) == ("h1", False, True)
    assert "policy" in told
    assert told["docker"]


def test_a_host_whose_owner_has_switched_commands_and_files_off_says_so(system: System) -> None:
    def shown() -> str:
        return system.command("host", "show", "h1").stdout

    system.start_control()
    system.enroll("h1")
    worker = system.start_worker("h1")
    until(lambda: "by the fleet's policy" in shown(), "it has registered")
    assert worker.stop() == 0
    begun = system.run("worker", "--host-id", "h1", "--no-shell")
    until(lambda: "switched off by the host's owner" in shown(), "it has registered anew")
    assert "no commands and no files, which are switched off here" in begun.log.read_text()
    assert system.fleet.push("fleet.host.facts", on="h1").results[0].get(timeout=30)["shell"] is False


def test_a_host_whose_owners_policy_switches_commands_and_files_off_says_so(system: System) -> None:
    path = system.directory / "policy.toml"
    path.write_text("[shell]\nenabled = false\n")
    system.start_control()
    system.enroll("h1")
    begun = system.start_worker("h1", FLEET_POLICY_FILE=str(path))
    said = begun.log.read_text()
    assert "no commands and no files, which are switched off here" in said
    assert "shell=False" in said
    until(
        lambda: "switched off by the host's owner" in system.command("host", "show", "h1").stdout, "it has registered"
    )
    assert system.fleet.push("fleet.host.facts", on="h1").results[0].get(timeout=30)["shell"] is False


def test_nobody_orders_a_worker_about_by_celerys_remote_control(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    system.start_worker("h1")
    assert system.redis.keys("*pidbox*") == []
    assert system.redis.pubsub_channels("*pidbox*") == []
    mine = [client for client in system.redis.client_list() if client["name"].startswith("fleet-h1")]
    assert mine
    assert {client["psub"] for client in mine} == {"0"}
