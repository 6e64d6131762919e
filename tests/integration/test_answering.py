"""Answering: approvals on a fleet as it runs: who may answer for what; an answer counts once, for one request."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import celery.exceptions
import pytest
from click.testing import CliRunner, Result

from fleet import credentials, db, errors, members, names, principals
from fleet.cli import approval
from fleet.client import Fleet
from fleet.contracts import Risk, approvals
from fleet.contracts.control import ApproveRun
from fleet.contracts.envelope import HEADER
from fleet.models import Run, ShellSession
from fleet.security import signing
from fleet.security.identity import Level
from fleet.security.keys import KeyPair
from tests.services.office import (
    TOUCH,
    answer,
    approval_of,
    ask,
    ask_for,
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

__all__ = ["office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]


@pytest.fixture
def canary(office: System, tmp_path: Path) -> Path:
    """What a command makes that was carried out."""
    rule(office, policy_text(tmp_path))
    return tmp_path / "canary"


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


def test_nobody_approves_what_they_asked_for(office: System, canary: Path) -> None:
    run, digest = ask(office, TOUCH, str(canary), by="eve")
    answer(office, "eve", run, digest)
    refused(office, run, "own_request")
    answer(office, "boss", run, digest)
    office.record(run, state="succeeded")


@pytest.mark.parametrize(("who", "reason"), [("reader", "not_permitted"), ("stu", "own_request")])
def test_nobody_approves_beyond_what_their_credential_says(office: System, canary: Path, who: str, reason: str) -> None:
    run, digest = ask(office, TOUCH, str(canary))
    answer(office, who, run, digest)
    refused(office, run, reason)
    assert not canary.exists()


def test_nobody_approves_what_has_become_graver_meanwhile_than_they_may(office: System, tmp_path: Path) -> None:
    rule(office, policy_text(tmp_path))
    run, digest = ask(office, "/usr/bin/uptime")
    rule(office, policy_text(tmp_path).replace('risk = "reads"', 'risk = "executes"'))
    answer(office, "reader", run, digest)
    refused(office, run, "not_permitted")
    answer(office, "boss", run, digest)
    office.record(run, state="succeeded")


@contextmanager
def paused(office: System) -> Iterator[None]:
    """Have the host begin nothing for as long as the block lasts."""
    assert office.command("host", "pause", "h1").returncode == 0
    until(lambda: (beat := office.heartbeat("h1")) and beat.availability == "paused", "the host is paused")
    try:
        yield
    finally:
        assert office.command("host", "resume", "h1").returncode == 0
        until(lambda: (beat := office.heartbeat("h1")) and beat.availability == "active", "the host is active")


@pytest.mark.parametrize("change", ["approver revoked", "graver by now"])
def test_an_approval_that_would_not_be_taken_any_more_lets_nothing_begin(
    office: System, tmp_path: Path, change: str
) -> None:
    rule(office, policy_text(tmp_path))
    name = f"former-{len(change)}"
    office.introduce(name, Level.STUDENT, approves=(Risk.READS,))
    run, digest = ask(office, "/usr/bin/uptime")
    with paused(office):
        answer(office, name, run, digest)
        office.record(run, state="accepted")
        if change == "approver revoked":
            assert office.command("principal", "revoke", name, "-y").returncode == 0
            until(lambda: not office.redis.llen(names.control("h1")), "the host has heard of it")
        else:
            rule(office, policy_text(tmp_path).replace('risk = "reads"', 'risk = "executes"'))
    ended = office.record(run, state="failed")
    assert ended.error is not None
    assert ended.error["kind"] == "approval_void"
    assert session_of(office, run).exit_code is None


def test_a_principal_of_other_hosts_cannot_answer_here(office: System, canary: Path) -> None:
    run, digest = ask(office, TOUCH, str(canary))
    with pytest.raises(errors.NotPermitted):
        answer(office, "elsewhere", run, digest)
    held = credentials.load_principal(office.settings.principal_path("elsewhere"), name="elsewhere")
    word = ApproveRun(run=run, digest=digest, by="elsewhere", run_before=4e9)
    before = len(office.events("message.refused"))
    say(office, held, word)
    until(lambda: len(office.events("message.refused")) > before, "the host refuses it")
    assert not canary.exists()


def say(office: System, held: Any, word: ApproveRun) -> None:
    """Put a word on the host's control list, past the library's own checks."""
    credential = credentials.load(office.settings.credential_path("h1"), host="h1")
    to = KeyPair.read(credential.private_key.get_secret_value()).public
    key = KeyPair.read(held.private_key.get_secret_value())
    item = signing.sign_control(to, word.model_dump_json(), key, held.credential)
    office.redis.lpush(names.control("h1"), item)


def test_an_approval_of_another_request_is_none(office: System, canary: Path) -> None:
    """One byte of the arguments, another run, another host or principal: each makes another digest."""
    run, digest = ask(office, TOUCH, str(canary))
    with db.session(office.engine, write=False) as session:
        item = json.loads(session.get_one(Run, run).message or "")
    changed: list[Callable[[dict[str, Any]], None]] = [
        lambda message: message.update(body=message["body"].replace("canary", "canarx")),
        lambda message: message["headers"].update(id=names.new_run_id("h1")),
        lambda message: message["headers"].update(task="fleet.files.put"),
        lambda message: message["headers"]["fleet"].update(host="h2"),
        lambda message: message["headers"]["fleet"].update(submitted_by="alice"),
        lambda message: message["headers"]["fleet"].update(limits={"hard_seconds": 86400.0, "soft_seconds": None}),
    ]
    for change in changed:
        other = json.loads(json.dumps(item))
        change(other)
        found = approvals.digest(json.dumps(other))
        assert found != digest
        before = len([event for event in office.life(run) if event.event == "approval.refused"])
        answer(office, "boss", run, found)
        until(
            lambda before=before: len([e for e in office.life(run) if e.event == "approval.refused"]) > before,
            "the host refuses it",
        )
        refused(office, run, "changed")
    assert not canary.exists()


def test_an_approval_comes_too_late_when_the_time_for_it_is_over(office: System, tmp_path: Path) -> None:
    rule(office, policy_text(tmp_path, approve_within="1s"))
    with fleet_of(office, "stu") as fleet:  # nobody might see in time that it waits
        asked = {"argv": [TOUCH, str(tmp_path / "canary")]}
        [run] = fleet.push("fleet.shell.run", on="h1", arguments=asked).run_ids
    office.record(run, state="expired")
    answer(office, "boss", run, approval_of(office, run).digest)
    refused(office, run, "not_waiting")
    until(lambda: approval_of(office, run).state == "expired", "the approval is expired")
    assert not (tmp_path / "canary").exists()


def test_an_approved_run_that_cannot_begin_in_time_never_begins(office: System, canary: Path) -> None:
    run, digest = ask(office, TOUCH, str(canary))

    def is_approved() -> bool:
        told = len(office.life(run))
        answer(office, "boss", run, digest, run_within=1.0)
        until(lambda: len(office.life(run)) > told, "the host says what it makes of the answer")
        return any(event.event == "run.approved" for event in office.life(run))

    with paused(office):
        until(is_approved, "an answer that its host takes before its time is over")
        office.record(run, state="expired")
    assert not canary.exists()


def test_a_denied_run_never_begins_and_its_caller_hears_by_whom(office: System, canary: Path) -> None:
    run, digest = ask(office, TOUCH, str(canary))
    with fleet_of(office, "boss") as fleet:
        fleet.deny(run, digest=digest, reason="not now")
    ended = office.record(run, state="rejected")
    assert ended.error is not None
    assert "boss" in ended.error["message"]
    answer(office, "boss", run, digest)
    refused(office, run, "not_waiting")
    assert not canary.exists()


def answered_after(
    office: System, monkeypatch: pytest.MonkeyPatch, says: str, run: str, *, first: Callable[[], object]
) -> Result:
    """Have boss answer by the command line, after something else has landed meanwhile."""
    method = getattr(Fleet, says)

    def late(*args: Any, **wishes: Any) -> None:
        monkeypatch.setattr(Fleet, says, method)
        first()
        method(*args, **wishes)

    monkeypatch.setattr(Fleet, says, late)
    return CliRunner().invoke(approval.group, [says, run], env=office.environment(FLEET_PRINCIPAL="boss"))


def test_who_approves_what_somebody_else_denies_first_is_not_told_that_all_is_well(
    office: System, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, digest = ask(office, TOUCH, str(canary))

    def denied() -> None:
        with fleet_of(office, "eve") as fleet:
            fleet.deny(run, digest=digest, reason="not today")
        office.record(run, state="rejected")

    done = answered_after(office, monkeypatch, "approve", run, first=denied)
    assert isinstance(done.exception, errors.Refused), done.stderr
    assert "denied by eve: not today" in done.exception.message
    assert "it never runs" not in done.stderr
    assert not canary.exists()


@pytest.mark.parametrize(
    ("says", "told"), [("approve", "approved; h1 runs it once"), ("deny", "denied; it never runs")]
)
def test_an_answer_that_counts_is_not_taken_for_another_approvers_that_does_not(
    office: System, canary: Path, monkeypatch: pytest.MonkeyPatch, says: str, told: str
) -> None:
    run, digest = ask(office, TOUCH, str(canary))

    def refused_to_another() -> None:
        answer(office, "reader", run, digest)
        refused(office, run, "not_permitted")

    done = answered_after(office, monkeypatch, says, run, first=refused_to_another)
    assert done.exit_code == 0, done.exception
    assert told in done.stderr
    office.record(run, state="succeeded" if says == "approve" else "rejected")


def test_what_a_revoked_principal_asked_for_is_not_begun_by_an_approval(office: System, canary: Path) -> None:
    office.introduce("gone", Level.STUDENT)
    run, digest = ask(office, TOUCH, str(canary), by="gone")
    assert office.command("principal", "revoke", "gone", "-y").returncode == 0

    def rejected() -> bool:
        answer(office, "boss", run, digest)
        with db.session(office.engine, write=False) as session:
            return session.get_one(Run, run).state in {"rejected", "succeeded"}

    until(rejected, "the host has heard of it")
    assert office.record(run, state="rejected").error == {
        "kind": "credential_revoked",
        "message": "the credential of principal gone is revoked",
    }
    assert not canary.exists()


def test_what_the_policy_denies_meanwhile_is_not_begun_by_an_approval(office: System, canary: Path) -> None:
    run, digest = ask(office, TOUCH, str(canary))
    rule(office, '[[commands]]\nname = "uptime"\nrisk = "reads"\nargv = ["/usr/bin/uptime"]\n')
    answer(office, "boss", run, digest)
    ended = office.record(run, state="rejected")
    assert ended.error is not None
    assert ended.error["kind"] == "not_in_allow_list"
    assert not canary.exists()


def test_a_level_that_was_raised_approves_nothing_that_waits(office: System, canary: Path) -> None:
    office.introduce("riser", Level.STUDENT)
    run, _digest = ask(office, TOUCH, str(canary), by="riser")
    with office.control_plane() as (session, client, ring):
        principals.set_level(session, "riser", Level.AUTONOMOUS, ring=ring, by="alice")
        members.announce_trust(session, client, ring)
    assert office.command("task", "cancel", run, "--wait").returncode == 0
    assert not canary.exists()


def test_of_an_approval_and_a_cancel_one_counts_a_hundred_times(office: System, tmp_path: Path) -> None:
    rule(office, policy_text(tmp_path))
    office.introduce("hundred", Level.STUDENT)
    with fleet_of(office, "hundred") as asks, fleet_of(office, "boss") as approves, fleet_of(office, "hundred") as ends:
        canaries: dict[str, Path] = {}
        for number in range(100):
            canary = tmp_path / f"canary-{number}"
            [run] = asks.push("fleet.shell.run", on="h1", arguments={"argv": [TOUCH, str(canary)]}).run_ids
            canaries[run] = canary
        for run in canaries:
            digest = approvals.digest(office.record(run, state="awaiting_approval").message or "")
            both = [
                threading.Thread(target=approves.approve, args=(run,), kwargs={"digest": digest, "run_within": 60.0}),
                threading.Thread(target=ends.cancel, args=(run,)),
            ]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
    for run, canary in canaries.items():

        def ended(run: str = run) -> Run | None:
            with db.session(office.engine, write=False) as session:
                found = session.get_one(Run, run)
                session.expunge_all()
            return found if found.finished_at else None

        found = until(ended, f"{run} has ended")
        assert found.state in {"succeeded", "cancelled"}
        begun = any(event.event == "run.started" for event in office.life(run))
        assert canary.exists() <= begun
        if found.state == "succeeded":
            assert canary.exists()


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


def test_an_approved_task_does_not_begin_for_a_principal_who_was_revoked_meanwhile(
    office: System, canary: Path
) -> None:
    office.introduce("late", Level.INTERN)
    run, digest = ask_for(office, "fleet.containers.restart", {"container": "web"}, by="late")
    with paused(office):
        answer(office, "boss", run, digest)
        office.record(run, state="accepted")
        assert office.command("principal", "revoke", "late", "-y").returncode == 0
        until(lambda: not office.redis.llen(names.control("h1")), "the host has heard of it")
    ended = office.record(run, state="failed")
    assert ended.error is not None
    assert ended.error["kind"] == "credential_revoked"
