"""Reading commands: tables for people, one shape for programs, and nothing of a host's that moves a terminal."""

import json
import signal
import threading
import time
from datetime import timedelta

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import Engine

from fleet import audit, clock, db, errors, inventory, names, runs
from fleet.cli import waiting
from fleet.settings import Settings
from tests import factories
from tests.integration.cli.conftest import Cli
from tests.services.broker import Broker

EVIL = "web\x1b]52;c;QUFB\x07\u202e"


@pytest.fixture
def run_id(ledger: Engine, broker: Broker) -> str:
    """Enroll edge-7 and lab; let edge-7 have carried out one task."""
    run = names.new_run_id("edge-7")
    reports = [factories.queued(run, description=EVIL), *factories.life(run)]
    with db.session(ledger) as session:
        factories.enroll(session, "edge-7", labels={"env": "prod"})
        factories.enroll(session, "lab")
        inventory.register(session, "edge-7", facts=factories.facts(os=EVIL), at=clock.now())
        runs.apply_many(session, reports)
        for report in reports:
            audit.record(
                session,
                event=report.kind.value,
                actor=report.sender,
                host_id="edge-7",
                run_id=run,
                occurred_at=clock.from_unix(report.at),
                data={"step": EVIL},
            )
    with db.session(ledger, write=False) as session, broker.connect() as client:
        inventory.publish_hosts(session, client)
    return run


def test_tasks_are_listed_in_every_form(cli: Cli, run_id: str) -> None:
    table = cli("task", "list")
    assert table.code == 0
    assert run_id in table.out
    assert "succeeded" in table.out
    assert "\x1b" not in table.out
    assert "\u202e" not in table.out
    [record] = cli("task", "list", "-o", "json").json
    assert record["id"] == run_id
    assert record["arguments"] == {"container": "web"}
    assert record["description"] == EVIL
    assert cli("task", "list", "-o", "id").out == f"{run_id}\n"
    assert json.loads(cli("-o", "jsonl", "task", "list").out) == record
    assert yaml.safe_load(cli("task", "list", "-o", "yaml").out) == [record]


def test_a_task_that_was_pushed_just_now_is_waited_for_until_it_is_recorded(
    ledger: Engine, run_id: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=SecretStr(migrated_url))
    monkeypatch.setattr(waiting, "_RECORDED_WITHIN_SECONDS", 60.0)
    looked, pushed = threading.Event(), names.new_run_id("edge-7")

    def pause(_: float) -> None:
        looked.set()
        recorder.join()

    def record() -> None:
        looked.wait(60)
        with db.session(ledger) as session:
            runs.apply_many(session, [factories.queued(pushed)])

    monkeypatch.setattr("fleet.cli.waiting.time.sleep", pause)
    recorder = threading.Thread(target=record)
    recorder.start()
    waiting.await_record(settings, pushed)
    assert looked.is_set(), "it was there before anybody looked"
    assert not recorder.is_alive()

    monkeypatch.setattr(waiting, "_RECORDED_WITHIN_SECONDS", 0.0)
    waiting.await_record(settings, names.new_run_id("edge-7"))
    with pytest.raises(errors.InvalidValue):
        waiting.await_record(settings, "edge-7:none")


def test_an_empty_list_is_empty_for_programs_and_says_so_to_people(cli: Cli) -> None:
    assert cli("task", "list", "--json").out == "[]\n"
    people = cli("task", "list")
    assert people.out == ""
    assert "no tasks; see `fleet push-task --help`" in people.err
    assert cli("task", "list", "-q").err == ""
    assert cli("task", "list", "--state", "failed").err == "no task matches\n"


def test_a_task_is_shown_by_its_id_or_the_end_of_it(cli: Cli, run_id: str) -> None:
    whole = cli("task", "show", run_id, "--json").json
    assert whole["state"] == "succeeded"
    assert whole["reply"] == {"container": "web"}
    assert [attempt["state"] for attempt in whole["attempts"]] == ["succeeded"]
    assert cli("task", "show", run_id[-12:], "--json").json == whole
    people = cli("task", "show", run_id[-12:]).out
    assert run_id in people
    assert "\x1b" not in people
    unknown = cli("task", "show", "ffffffffffff")
    assert unknown.code == 2
    assert "no recorded task ends in 'ffffffffffff'" in unknown.error


def test_the_events_of_a_task_tell_its_life(cli: Cli, run_id: str) -> None:
    lines = [json.loads(line) for line in cli("task", "events", run_id, "-o", "jsonl").out.splitlines()]
    assert [line["event"] for line in lines] == [
        "run.queued",
        "run.accepted",
        "run.started",
        "run.progressed",
        "run.succeeded",
    ]
    assert {line["run"] for line in lines} == {run_id}


def test_the_audit_is_filtered(cli: Cli, run_id: str) -> None:
    assert len(cli("audit", "list", "--json").json) == 5
    assert [e["event"] for e in cli("audit", "list", "--by", "p:alice", "--json").json] == ["run.queued"]
    assert [e["event"] for e in cli("audit", "list", "-n", "1", "--json").json] == ["run.succeeded"]
    assert cli("audit", "list", "--host", "lab", "--json").json == []
    assert len(cli("audit", "list", "--since", "1h", "--task", run_id, "--json").json) == 5


def test_the_audit_is_followed_without_a_gap_while_the_broker_is_away(cli: Cli, ledger: Engine, broker: Broker) -> None:
    with db.session(ledger) as session:
        audit.record(session, event="host.labeled", actor="p:alice", data={"n": 0})
    process = cli.start("audit", "follow", "-n", "1", "-o", "jsonl")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["data"] == {"n": 0}
    broker.stop()
    try:
        for number in (1, 2):
            with db.session(ledger) as session:
                audit.record(session, event="host.labeled", actor="p:alice", data={"n": number})
            assert json.loads(process.stdout.readline())["data"] == {"n": number}
    finally:
        broker.start()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "looking every 2 s only" in said


def test_containers_are_listed_live_and_what_is_not_known_reads_unknown(cli: Cli, run_id: str, broker: Broker) -> None:
    listed = [factories.container("web", image=EVIL), factories.container("db", state="exited")]
    with broker.connect() as client:
        value = {"at": time.time(), "containers": [one.model_dump(mode="json") for one in listed]}
        client.set(names.inventory("edge-7"), json.dumps(value))
    done = cli("ps")
    assert done.code == 0
    assert "\x1b" not in done.out
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    assert "unknown" in rows["lab"]
    assert "unknown: lab" in done.err
    whole = cli("ps", "--json").json
    assert [(c["host"], c["name"]) for c in whole["containers"]] == [("edge-7", "web"), ("edge-7", "db")]
    assert whole["unknown"] == ["lab"]
    running = cli("ps", "--running", "--host", "edge-7", "-o", "jsonl").out
    assert json.loads(running)["name"] == "web"
    assert cli("ps", "-l", "env=prod", "-o", "id").out.split() == [one.docker_id for one in listed]


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"containers": [{"name": 1}]}', "\x00"])
def test_an_inventory_that_cannot_be_read_is_unknown(cli: Cli, run_id: str, broker: Broker, value: str) -> None:
    with broker.connect() as client:
        client.set(names.inventory("edge-7"), value)
    assert cli("ps", "--host", "edge-7", "--json").json == {"containers": [], "unknown": ["edge-7"]}


def test_labels_reach_the_audit_and_the_registry(cli: Cli, run_id: str, broker: Broker) -> None:
    done = cli("host", "label", "edge-7", "site=basel", "env-", "--json")
    assert done.json == {"id": "edge-7", "labels": {"site": "basel"}}
    with broker.connect() as client:
        assert factories.labels(client, "edge-7") == {"site": "basel"}
    [event] = cli("audit", "list", "--event", "host.labeled", "--json").json
    assert event["actor"] == "p:alice"
    assert event["data"]["set"] == {"site": "basel"}
    unknown = cli("host", "label", "edge-8", "a=b")
    assert unknown.code == 2
    assert "no host named 'edge-8'; did you mean 'edge-7'?" in unknown.error


def test_a_dry_run_tells_who_would_get_it_and_pushes_nothing(cli: Cli, run_id: str, broker: Broker) -> None:
    done = cli("push-task", "fleet.host.ping", "--all", "--dry-run")
    assert done.code == 5
    assert "fail the push: host_not_connected" in done.out
    assert cli("push-task", "fleet.host.ping", "--all", "--dry-run", "--offline", "queue").code == 0
    refused = cli("push-task", "fleet.host.ping", "--host", "lab")
    assert refused.code == 5
    assert "host_not_connected: host 'lab' is not connected; nothing was queued" in refused.error
    stranger = cli("push-task", "fleet.host.ping", "--host", "lba")
    assert stranger.code == 5
    assert "did you mean 'lab'?" in stranger.error
    skipped = cli("push-task", "fleet.host.ping", "--all", "--offline", "skip", "-o", "json")
    assert skipped.code == 5
    assert skipped.json["skipped"] == ["edge-7", "lab"]
    with broker.connect() as client:
        assert client.llen(names.queue("lab")) == client.llen(names.queue("edge-7")) == 0


def test_a_push_that_is_queued_prints_its_id_and_expires(cli: Cli, run_id: str, broker: Broker) -> None:
    done = cli(
        *("push-task", "fleet.host.ping", "--host", "lab", "--offline", "queue", "--expires", "15m"),
        *("--arg", "echo=hello", "--meta", "ticket=7", "--description", "hello"),
    )
    assert done.code == 0
    pushed = done.out.split()[-1]
    assert names.host_of_run(pushed) == "lab"
    assert f"fleet task wait {pushed}" in done.err
    with broker.connect() as client:
        [message] = client.lrange(names.queue("lab"), 0, -1)
    envelope = json.loads(message)["headers"]["fleet"]
    assert envelope["metadata"] == {"ticket": "7"}
    assert envelope["description"] == "hello"
    assert envelope["submitted_by"] == "alice"
    assert abs(envelope["not_after"] - time.time() - timedelta(minutes=15).total_seconds()) < 60
    late = cli("task", "wait", pushed, "--timeout", "1s", "-o", "json")
    assert late.code == 124
    assert late.json["runs"][0]["state"] == "unfinished"
    assert json.loads(late.err)["error"]["code"] == "timed_out"


def test_waiting_for_old_tasks_is_answered_by_the_ledger(cli: Cli, run_id: str, broker: Broker) -> None:
    done = cli("task", "wait", run_id, "--json")
    assert done.code == 0
    assert done.json["runs"][0]["reply"] == {"container": "web"}
    with broker.connect() as client:
        client.set(names.CONTROL_LEASE, "somebody")
    unknown = cli("task", "wait", names.new_run_id("edge-7"))
    assert unknown.code == 2
    assert "is recorded" in unknown.err
