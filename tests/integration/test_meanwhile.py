"""Meanwhile: answers that meet another answer, a cancel, a revocation, or a policy and a level that have changed."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet import db, errors, members, principals
from fleet.cli import approval
from fleet.client import Fleet
from fleet.contracts import approvals
from fleet.models import Run
from fleet.security.identity import Level
from tests.services.office import (
    TOUCH,
    answer,
    ask,
    canary,
    fleet_of,
    office,
    policy_text,
    refused,
    rule,
    standing,
)
from tests.services.system import System
from tests.services.waiting import until

__all__ = ["canary", "office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]


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
