"""Asking: what waits for approval, what runs at once and what is denied, and what is on record of each."""

import json
from pathlib import Path
from typing import Any

import celery.exceptions
import pytest

from fleet import credentials, db, errors, names
from fleet.contracts import approvals
from fleet.contracts.envelope import HEADER
from fleet.models import Run, ShellSession
from fleet.security.identity import Level
from tests.services.office import (
    TOUCH,
    answer,
    approval_of,
    ask,
    canary,
    fleet_of,
    office,
    policy_text,
    refused,
    rule,
    session_of,
    standing,
)
from tests.services.system import System
from tests.services.waiting import until
from workers.host.parking import MOST_OF_ONE

__all__ = ["canary", "office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]


def test_what_a_student_asks_for_waits_until_another_principal_approves_and_runs_once(
    office: System, canary: Path
) -> None:
    run, digest = ask(office, TOUCH, str(canary), description="to see it work")
    assert not canary.exists()
    answer(office, "boss", run, digest, reason="fine with me")
    ended = office.record(run, state="succeeded")
    assert ended.reply is not None
    assert ended.reply["exit_code"] == 0
    assert canary.exists()
    told = [(event.event, event.data.get("by")) for event in office.life(run)]
    assert ("run.approved", "boss") in told
    assert ended.submitted_by == "stu"
    recorded = session_of(office, run)
    assert (recorded.principal, recorded.approved_by, recorded.decision) == ("stu", "boss", "ask")
    assert approval_of(office, run).decided_by == "boss"

    canary.unlink()
    answer(office, "boss", run, digest)
    refused(office, run, "not_waiting")
    assert not canary.exists()
    assert len([event for event in office.life(run) if event.event == "run.started"]) == 1


def test_the_callers_get_goes_on_waiting_until_somebody_answers(office: System, canary: Path) -> None:
    with fleet_of(office, "stu") as fleet:
        [result] = fleet.push("fleet.shell.run", on="h1", arguments={"argv": [TOUCH, str(canary)]}).results
        run = office.record(result.id, state="awaiting_approval")
        with pytest.raises(celery.exceptions.TimeoutError):
            result.get(timeout=0.5)
        assert run.message
        answer(office, "boss", run.id, approvals.digest(run.message))
        assert result.get(timeout=30)["exit_code"] == 0


def test_whoever_is_trusted_runs_it_at_once(office: System, canary: Path) -> None:
    with fleet_of(office, "alice") as fleet:
        [outcome] = fleet.push("fleet.shell.run", on="h1", arguments={"argv": ["touch", str(canary)]}).wait(timeout=30)
    assert outcome.reply is not None
    assert canary.exists()
    assert session_of(office, outcome.run_id).approved_by is None


def test_what_is_not_listed_is_denied_with_the_rule_and_on_record(office: System, canary: Path) -> None:
    with fleet_of(office, "alice") as fleet:
        asked = {"argv": ["bash", "-c", f"touch {canary}"]}
        [outcome] = fleet.push("fleet.shell.run", on="h1", arguments=asked).wait(timeout=30)
    assert isinstance(outcome.error, errors.TaskRejected)
    assert outcome.error.reason == "not_in_allow_list"
    assert "bash" in outcome.error.detail
    recorded = session_of(office, outcome.run_id)
    assert (recorded.decision, recorded.outcome) == ("deny", "rejected")
    assert recorded.argv == ["bash", "-c", f"touch {canary}"]
    assert not canary.exists()


@pytest.mark.parametrize("directory", [False, True])
def test_what_is_denied_is_on_record_without_the_secrets_that_its_host_knows(
    office: System, canary: Path, *, directory: bool
) -> None:
    held = credentials.load(office.settings.credential_path("h1"), host="h1")
    secret = held.private_key.get_secret_value()
    asked: dict[str, Any] = {"argv": [f"MYSQL_PWD={secret}", "mysql"]}
    if directory:
        asked = {"argv": [TOUCH, str(canary)], "cwd": f"/{secret}"}
    with fleet_of(office, "alice") as fleet:
        [outcome] = fleet.push("fleet.shell.run", on="h1", arguments=asked).wait(timeout=30)
    assert isinstance(outcome.error, errors.TaskRejected)
    assert "***" in outcome.error.detail
    recorded = session_of(office, outcome.run_id)
    run = office.record(outcome.run_id, state="rejected")
    told = [event.data for event in office.life(outcome.run_id) if event.event != "run.queued"]
    for said in (outcome.error.detail, recorded.rule, recorded.cwd, recorded.argv, recorded.detail, run.error, told):
        assert secret[:20] not in str(said)
    assert "***" in recorded.rule


def pushed_past_the_library(office: System, run: str, *, by: str, body: Any = None, **envelope: Any) -> str:
    """Put a request like that of a run into the host's queue, past the caller's own checks; return its new run."""
    with db.session(office.engine, write=False) as session:
        message = json.loads(session.get_one(Run, run).message or "")
    made = names.new_run_id("h1")
    message["headers"] |= {"id": made, "root_id": made}
    message["headers"][HEADER] |= {"submitted_by": by, **envelope}
    if body is not None:
        message["body"] = json.dumps([[], body, {}])
    office.sign(message, by=by)
    office.redis.lpush(names.queue("h1"), json.dumps(message))
    return made


@pytest.mark.parametrize(
    ("who", "more", "reason"),
    [
        ("elsewhere", {}, "not_permitted"),
        ("former", {}, "credential_revoked"),
        ("alice", {"body": {"argv": []}}, "invalid_arguments"),
        ("alice", {"submitted_at": 1.0}, "stale"),
        ("alice", {"not_after": 1_000_000_000.0}, "expired"),
    ],
)
def test_a_command_that_is_refused_before_the_policy_is_asked_is_on_record_as_well(
    office: System, canary: Path, who: str, more: dict[str, Any], reason: str
) -> None:
    asked, _digest = ask(office, TOUCH, str(canary))
    if who == "former":
        office.introduce(who)
        assert office.command("principal", "revoke", who, "-y").returncode == 0
        until(lambda: not office.redis.llen(names.control("h1")), "the host has heard of it")
    run = pushed_past_the_library(office, asked, by=who, **more)
    recorded = session_of(office, run)
    assert (recorded.principal, recorded.decision, recorded.reason) == (who, "deny", reason)
    assert recorded.outcome == ("expired" if reason == "expired" else "rejected")
    assert recorded.rule
    assert recorded.argv == ([] if "body" in more else [TOUCH, str(canary)])
    assert not canary.exists()


def test_what_nobody_has_signed_is_nobodys_session(office: System, canary: Path) -> None:
    asked, _digest = ask(office, TOUCH, str(canary))
    with db.session(office.engine, write=False) as session:
        message = json.loads(session.get_one(Run, asked).message or "")
    message["headers"]["id"] = run = names.new_run_id("h1")
    before = len(office.events("message.refused"))
    office.redis.lpush(names.queue("h1"), json.dumps(message))
    until(lambda: len(office.events("message.refused")) > before, "the host refuses it")
    with db.session(office.engine, write=False) as session:
        assert session.get(ShellSession, run) is None


def test_whoever_approves_is_shown_how_long_it_may_take_and_how_often_it_is_begun(office: System, canary: Path) -> None:
    run, _digest = ask(office, TOUCH, str(canary), time_limit=90.0, max_retries=7)
    said = office.command("approval", "approve", run, "-y", FLEET_PRINCIPAL="boss")
    assert said.returncode == 0, said.stderr
    for words in ("stu (student)", str(canary), "1m30s", "up to 7 times", "approved; h1 runs it"):
        assert words in said.stderr, words
    office.record(run, state="succeeded")


def test_program_and_directory_are_shown_to_whoever_approves_and_on_record(
    office: System, canary: Path, tmp_path: Path
) -> None:
    rule(office, f'{policy_text(tmp_path)}cwd = ["{tmp_path}"]\n')
    run, digest = ask(office, "touch", str(canary))
    shown = office.command("approval", "show", run).stdout
    lines = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    assert lines["Program"].strip() == TOUCH
    assert lines["Directory"].strip() == str(tmp_path)
    answer(office, "boss", run, digest)
    office.record(run, state="succeeded")
    recorded = session_of(office, run)
    assert (recorded.argv, recorded.cwd) == (["touch", str(canary)], None)
    assert recorded.run_as == {
        "program": str(Path(TOUCH).resolve()),
        "argv": [TOUCH, str(canary)],
        "cwd": str(tmp_path),
        "env": [],
    }


def test_a_run_that_asks_anew_after_it_was_accepted_can_be_answered_for(office: System, canary: Path) -> None:
    """In the ledger it never goes back from there, and among what waits it is listed."""
    run, _digest = ask(office, TOUCH, str(canary))
    with db.session(office.engine) as session:
        session.get_one(Run, run).state = "accepted"
    said = office.command("approval", "deny", run, "-y", FLEET_PRINCIPAL="boss")
    assert said.returncode == 0, said.stderr
    office.record(run, state="rejected")
    said = office.command("approval", "approve", run, "-y", FLEET_PRINCIPAL="boss")
    assert "is rejected" in said.stderr


def test_an_interns_change_waits_for_approval_as_a_command_does(office: System, canary: Path) -> None:
    office.introduce("int", Level.INTERN)
    with fleet_of(office, "int") as fleet:
        [result] = fleet.push("fleet.containers.restart", on="h1", arguments={"container": "web"}).results
    run = office.record(result.id, state="awaiting_approval")
    assert run.message
    approval = approval_of(office, run.id)
    assert (approval.principal, approval.risk, approval.state) == ("int", "changes", "pending")
    answer(office, "boss", run.id, approvals.digest(run.message))
    ended = office.record(run.id, state="failed")  # it began; this host has no Engine
    assert ended.error is not None
    assert ended.error["kind"] == "engine_unavailable"
    assert approval_of(office, run.id).decided_by == "boss"


def test_what_a_student_may_not_even_ask_for_is_not_sent(office: System, canary: Path) -> None:
    with fleet_of(office, "stu") as fleet, pytest.raises(errors.NotPermitted, match="only look"):
        fleet.push("fleet.containers.restart", on="h1", arguments={"container": "web"})


def test_a_rule_of_the_fleet_lets_a_student_do_more(office: System, tmp_path: Path) -> None:
    rule(
        office,
        policy_text(tmp_path)
        + '[[rules]]\nname = "students restart"\ndecision = "allow"\nlevels = ["student"]\n'
        + 'tasks = ["fleet.containers.restart"]\n',
    )
    with fleet_of(office, "stu") as fleet:
        [outcome] = fleet.push("fleet.containers.restart", on="h1", arguments={"container": "web"}).wait(timeout=30)
    assert getattr(outcome.error, "code", "") == "failed"


def test_a_rule_of_the_fleet_has_even_the_autonomous_ask(office: System, tmp_path: Path) -> None:
    rule(
        office,
        policy_text(tmp_path) + '[[rules]]\nname = "ask first"\n'
        'decision = "ask"\ntasks = ["fleet.containers.restart"]\n'
        'reason = "busy week"\n',
    )
    with fleet_of(office, "alice") as fleet:
        [result] = fleet.push("fleet.containers.restart", on="h1", arguments={"container": "web"}).results
    run = office.record(result.id, state="awaiting_approval")
    assert "busy week" in approval_of(office, run.id).rule
    assert office.command("task", "cancel", run.id, "--wait").returncode == 0


def test_fleet_exec_says_what_it_waits_for_and_who_approved_and_exits_as_the_program_does(
    office: System, canary: Path
) -> None:
    asking = office.run("exec", "--host", "h1", "--", TOUCH, str(canary), FLEET_PRINCIPAL="stu")

    def lines() -> list[str]:
        return asking.log.read_text().splitlines()

    waits = until(lambda: next((said for said in lines() if "fleet approval approve" in said), ""), "it says so")
    run = waits.rpartition("fleet approval approve ")[2].removesuffix("`")
    assert 'command "canary" (changes)' in waits
    answered = office.command("approval", "approve", run, "-y", FLEET_PRINCIPAL="boss")
    assert answered.returncode == 0, answered.stderr
    assert asking.process.wait(30) == 0
    assert lines()[1:] == ["h1: approved by boss"]
    assert canary.exists()


def test_fleet_push_task_says_what_it_waits_for_too(office: System, canary: Path) -> None:
    words = ("push-task", "fleet.shell.run", "--host", "h1", "--arg", f'argv=["{TOUCH}", "{canary}"]', "--wait")
    asking = office.run(*words, FLEET_PRINCIPAL="stu")
    until(lambda: "h1: waits for approval" in asking.log.read_text(), "it says so")
    [run] = office.command("approval", "list", "-n", "1", "-o", "id").stdout.split()
    assert office.command("approval", "deny", run, "-y", FLEET_PRINCIPAL="boss").returncode == 0
    assert asking.process.wait(30) == 4
    assert not canary.exists()


def test_a_pipe_gets_what_one_program_wrote_to_the_byte_and_of_one_that_ran_too_long_it_is_said_where_it_is(
    office: System, tmp_path: Path
) -> None:
    rule(
        office,
        policy_text(tmp_path)
        + '[[commands]]\nname = "print"\nrisk = "reads"\nargv = ["/usr/bin/printf", "a\\\\r\\\\nb"]\n'
        + '[[commands]]\nname = "sleep"\nrisk = "reads"\nargv = ["/bin/sleep", "30"]\n',
    )
    asked = office.run("exec", "--host", "h1", "--", "printf", "a\\r\\nb")
    assert asked.process.wait(30) == 0
    assert asked.log.read_bytes() == b"a\r\nb"
    late = office.command("exec", "--host", "h1", "--time-limit", "1s", "--", "sleep", "30")
    assert late.returncode == 125
    assert "h1: `fleet task logs h1:" in late.stderr


def test_nobody_fills_a_host_with_what_waits(office: System, canary: Path) -> None:
    office.introduce("many", Level.STUDENT)
    asked = {"argv": [TOUCH, str(canary)]}
    with fleet_of(office, "many") as fleet:
        batches = [fleet.push("fleet.shell.run", on="h1", arguments=asked) for _ in range(MOST_OF_ONE)]
        office.record(batches[-1].run_ids[0], state="awaiting_approval")
        [outcome] = fleet.push("fleet.shell.run", on="h1", arguments=asked).wait(timeout=30)
        assert isinstance(outcome.error, errors.TaskRejected)
        assert outcome.error.reason == "too_many_waiting"
        run, _digest = ask(office, TOUCH, str(canary))  # others still may
        for batch in batches:
            batch.cancel()
        assert {outcome.state for batch in batches for outcome in batch.wait(timeout=60)} == {"cancelled"}
    assert office.command("task", "cancel", run, "--wait").returncode == 0
