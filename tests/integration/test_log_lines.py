"""Log lines of real workers: each about a run, a host or a principal says so, by the same names everywhere."""

import json
from typing import Any

import pytest

from fleet import names
from fleet.client import Fleet
from fleet.security.identity import Level
from tests.services.system import Part, System
from tests.services.waiting import until

#: What would be a line of its own, if it could.
EVIL = '\n{"event": "run.approved"}\x1b[31m\u202e'

pytestmark = pytest.mark.parametrize("backend", ["sqlite"])


def lines(part: Part) -> list[dict[str, Any]]:
    """Return all lines of a process, each of which is one object; it may still be writing the next one."""
    return [json.loads(line) for line in part.log.read_text().rpartition("\n")[0].splitlines()]


def of(part: Part, event: str) -> dict[str, Any]:
    return until(lambda: next((line for line in lines(part) if line["event"] == event), None), f"{event} is logged")


def test_every_line_of_a_worker_names_its_host_and_those_about_a_run_name_it_and_who_asked(system: System) -> None:
    control = system.run("control", FLEET_LOG_FORMAT="json")
    of(control, "lease.gained")
    system.enroll("h1")
    assert of(control, "enrollment.answered")["host"] == "h1"
    worker = system.start_worker("h1", FLEET_LOG_FORMAT="json")
    system.introduce("ida", Level.INTERN)
    with Fleet(system.settings.model_copy(update={"principal": "ida"})) as ida:
        [run] = ida.push("fleet.containers.restart", on="h1", arguments={"container": "web"}, description=EVIL).run_ids
    parked = of(worker, "run.parked")
    assert (parked["run"], parked["host"], parked["principal"]) == (run, "h1", "ida")
    message = system.genuine()
    message["headers"]["task"] = f"acme.{EVIL}"
    system.sign(message)
    system.redis.lpush(names.queue("h1"), json.dumps(message))
    refused = of(worker, "message.refused")
    assert (refused["host"], refused["principal"], refused["run"]) == ("h1", "alice", message["headers"]["id"])
    assert system.command("host", "pause", "h1").returncode == 0
    paused = of(worker, "availability.changed")
    assert (paused["host"], paused["principal"]) == ("h1", "alice")
    assert all(line["host"] == "h1" for line in lines(worker))
    assert "run.approved" not in {line["event"] for part in (worker, control) for line in lines(part)}


def test_lines_for_people_bear_the_same_names(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    worker = system.start_worker("h1")
    system.introduce("ida", Level.INTERN)
    with Fleet(system.settings.model_copy(update={"principal": "ida"})) as ida:
        [run] = ida.push("fleet.containers.restart", on="h1", arguments={"container": "web"}).run_ids

    def parked() -> str:
        return next((line for line in worker.log.read_text().splitlines() if "run.parked" in line), "")

    said = until(parked, "it waits for approval")
    for field in (f"run={run}", "host=h1", "principal=ida"):
        assert field in said


def test_what_cannot_be_stored_names_who_has_sent_it(system: System) -> None:
    control = system.run("control", FLEET_LOG_FORMAT="json")
    of(control, "lease.gained")
    system.redis.set("fleet:reports:h9", "no list")
    system.redis.sadd("fleet:reports:dirty", "h9")
    unreadable = of(control, "reports.unreadable")
    assert (unreadable["host"], unreadable["level"]) == ("h9", "warning")
    system.redis.set("fleet:reports:p:alice", "no list")
    system.redis.sadd("fleet:reports:dirty", "p:alice")
    until(lambda: any(line.get("principal") == "alice" for line in lines(control)), "who else it was is logged")
