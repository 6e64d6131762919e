"""Tasks and hosts that people intervene in: cancel, retry, pause, resume, drain, and what doctor says of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleet import db, names
from tests import factories
from tests.integration.cli.conftest import Cli
from tests.integration.cli.test_living import running, until
from tests.services.broker import Broker
from tests.services.system import System

#: What the worker of these tests is told: no Engine, and no long wait for tasks that still run at the end of a test.
HERE = {"DOCKER_HOST": "unix:///no/docker.sock", "FLEET_STOP_GRACE": "PT1S"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "effects"


@pytest.fixture
def fleet(cli: Cli, offered: Path, broker: Broker) -> Iterator[Cli]:
    """A control worker and the host edge-7, which has the test package installed."""
    cli.environment["PYTHONPATH"] = os.pathsep.join([str(offered), str(Path(__file__).parents[3])])
    with running(cli, "control"), broker.connect() as client:
        until(lambda: client.exists(names.CONTROL_LEASE))
        token = cli("token", "create", "-o", "id").out.strip()
        with running(cli, "worker", "--host-id", "edge-7", "--token", token, **HERE):
            until(lambda: client.exists(names.presence("edge-7")))
            yield cli


def push(cli: Cli, name: str, log: Path, *words: str, seconds: float = 0.0) -> str:
    arguments = ("--arg", f"log={log}", "--arg", f"seconds={seconds}")
    pushed = cli("push-task", f"offered.{name}", "--host", "edge-7", *arguments, *words, "-o", "id")
    assert pushed.code == 0, pushed.err
    run = pushed.out.strip()
    until(lambda: cli("task", "show", run).code == 0 if "not recorded" in pushed.err else True)
    return run


def state(cli: Cli, run: str) -> str:
    return str(cli("task", "show", run, "--json").json["state"])


def test_a_running_task_is_cancelled_and_one_that_has_ended_stays_as_it_ended(fleet: Cli, log: Path) -> None:
    run = push(fleet, "tidy", log, seconds=600)
    until(lambda: log.exists() and log.read_text())
    done = fleet("task", "cancel", run, "--reason", "wrong host", "--wait", "--timeout", "30s", "--json")
    assert done.code == 0
    [ended] = done.json["runs"]
    assert ended["state"] == "cancelled"
    assert "wrong host" in ended["error"]["message"]
    assert log.read_text().splitlines()[-1] == "tidied"
    shown = fleet("task", "show", run, "--json").json
    assert shown["cancel_requested_by"] == fleet.environment.get("FLEET_PRINCIPAL", shown["submitted_by"])

    succeeded = push(fleet, "effect", log, "--wait")
    assert succeeded
    assert fleet("task", "cancel", succeeded, "--wait", "--json").json["runs"][0]["state"] == "succeeded"


def test_what_waits_for_its_time_is_cancelled_before_it_begins(fleet: Cli, log: Path) -> None:
    run = push(fleet, "effect", log, "--delay", "10m")
    until(lambda: state(fleet, run) == "accepted")
    assert fleet("task", "cancel", run, "--wait", "--timeout", "30s").code == 0
    until(lambda: state(fleet, run) == "cancelled")
    assert not log.exists()


def test_limits_and_retries_are_given_with_the_push_and_a_task_that_ended_can_be_repeated(
    fleet: Cli, log: Path
) -> None:
    limited = push(fleet, "stubborn", log, "--time-limit", "1s", seconds=600)
    waited = fleet("task", "wait", limited, "--timeout", "30s", "--json")
    assert waited.code == 1
    assert waited.json["runs"][0]["error"]["kind"] == "time_limit"

    tried = push(fleet, "fail_twice", log, "--retries", "2", "--retry-backoff", "1s")
    assert fleet("task", "wait", tried, "--timeout", "30s", "--json").json["runs"][0]["reply"] == {"said": "attempt 3"}
    until(lambda: state(fleet, tried) == "succeeded")
    shown = fleet("task", "show", tried, "--json").json
    assert shown["attempt"] == 3
    assert len(shown["attempts"]) == 3
    assert "retr" in fleet("task", "events", tried).out

    again = fleet("task", "retry", limited, "-o", "id")
    assert again.code == 0
    repeated = again.out.strip()
    assert fleet("task", "show", repeated, "--json").json["retry_of"] == limited
    running = push(fleet, "effect", log, seconds=60)
    refused = fleet("task", "retry", running)
    assert refused.code == 2
    assert "fleet task cancel" in refused.error


def test_a_paused_host_takes_nothing_until_it_is_resumed(fleet: Cli, log: Path) -> None:
    assert fleet("host", "pause", "edge-7", "--json").json == [{"id": "edge-7", "availability": "paused"}]
    refused = fleet("push-task", "fleet.host.ping", "--host", "edge-7")
    assert refused.code == 5
    assert "host_not_available" in refused.error
    assert "fleet host resume" in refused.error
    until(lambda: fleet("host", "show", "edge-7", "--json").json["heartbeat"]["availability"] == "paused")
    run = push(fleet, "effect", log, "--offline", "queue")
    doctor = fleet("doctor", "--json").json["checks"]
    assert any("paused and takes no new work" in check["finding"] for check in doctor)
    assert state(fleet, run) == "queued"
    assert "paused" in fleet("host", "list").out
    assert fleet("host", "resume", "edge-7").code == 0
    assert fleet("task", "wait", run, "--timeout", "30s").code == 0


def test_a_name_that_is_none_leaves_the_other_hosts_as_they_are(cli: Cli, ledger: Engine, broker: Broker) -> None:
    """A host that was told of what is not on record would stay paused: what is on record is older, and not obeyed."""
    with db.session(ledger) as session:
        factories.enroll(session, "edge-7")
    wrong = cli("host", "pause", "edge-7", "edge-typo")
    assert wrong.code == 2
    assert "no host named 'edge-typo'" in wrong.error
    with broker.connect() as client:
        assert not client.exists(names.control("edge-7"))
    assert cli("host", "show", "edge-7", "--json").json["availability"] == "active"


def test_draining_waits_for_what_runs_and_cancels_what_is_left_at_the_deadline(fleet: Cli, log: Path) -> None:
    run = push(fleet, "tidy", log, seconds=600)
    until(lambda: log.exists() and log.read_text())
    patient = fleet("host", "drain", "edge-7", "--wait", "--timeout", "1s")
    assert patient.code == 124
    assert "edge-7 (1)" in patient.err
    done = fleet("host", "drain", "edge-7", "--deadline", "1s", "--wait", "--timeout", "40s")
    assert done.code == 0
    until(lambda: state(fleet, run) == "cancelled")


@pytest.mark.xdist_group("standing")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("host", "pause"), "name hosts, or labels"),
        (("host", "pause", "h9"), "no host named 'h9'"),
        (("task", "cancel", "h1:01890a5d-ac96-774b-bcce-b302099a8057"), "no task"),
        (("push-task", "fleet.host.ping", "--host", "h1", "--meta", "k=1", "--meta", "k=2"), "--meta k=1"),
        (("push-task", "fleet.host.ping", "--host", "h1", "--not-before", "soon"), "is no moment"),
        (("push-task", "fleet.host.ping", "--host", "h1", "--soft-time-limit", "2h"), "soft_time_limit"),
        (("push-task", "fleet.host.ping", "--host", "h1", "--description", "x" * 5000), "description"),
    ],
)
def test_a_wrong_wish_names_what_is_wrong(standing: System, words: tuple[str, ...], said: str) -> None:
    wrong = standing.command(*words)
    assert wrong.returncode == 2
    assert said in wrong.stderr
    assert "Traceback" not in wrong.stderr
