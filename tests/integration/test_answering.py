"""Answering: who may approve or deny what, and until when; an answer is good for one request."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet import credentials, db, errors, names
from fleet.contracts import Risk, approvals
from fleet.contracts.control import ApproveRun
from fleet.models import Run
from fleet.security import signing
from fleet.security.identity import Level
from fleet.security.keys import KeyPair
from tests.services.office import (
    TOUCH,
    answer,
    approval_of,
    ask,
    ask_for,
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

__all__ = ["canary", "office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]


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
