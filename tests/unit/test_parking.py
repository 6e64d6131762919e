"""Parking: somebody's word about a run that waits, and what comes of it."""

import json
import tracemalloc
from pathlib import Path

import pytest

from fleet import errors
from fleet.contracts import Risk, approvals, registry, shell
from fleet.contracts.control import ApproveRun, DenyRun
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import Decision
from fleet.policy import HostPolicy, Verdict
from fleet.security.identity import Level, PrincipalIdentity
from fleet.security.signing import HEADER
from tests import factories
from tests.services.sessions import Session, session, time
from workers.host.deadlines import Deadlines
from workers.host.governing import Governor
from workers.host.own import Own
from workers.host.parking import Parking
from workers.host.ruling import Ruling

__all__ = ["session", "time"]

BOB = PrincipalIdentity(
    key="b" * 43,
    issued_at=1.0,
    name="bob",
    level=Level.STUDENT,
    serial=1,
    expires_at=4e9,
    approves=frozenset(Risk),
)


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return factories.own(tmp_path / "credential.json", "h1")


@pytest.fixture
def governor(session: Session, own: Own, tmp_path: Path) -> Governor:
    return Governor(
        own=own,
        ruling=Ruling(tmp_path / "policy.json", own),
        host_policy=HostPolicy(),
        clock=session.time,
        takes_commands=True,
        mask=lambda text: text.replace("hunter2", "***"),
    )


@pytest.fixture
def parking(session: Session, governor: Governor) -> Parking:
    return Parking(
        session.parked,
        governor=governor,
        outbox=session.outbox,
        deadlines=Deadlines(),
        clock=session.time,
        wake=lambda: None,
    )


@pytest.mark.parametrize("answer", ["approve", "deny"])
def test_a_run_of_somebody_whom_no_key_of_the_fleet_vouches_for_any_more_ends_by_any_answer(
    session: Session, parking: Parking, answer: str
) -> None:
    run = session.accept(approve_within=600.0)
    [waiting] = session.parked.awaiting(run)
    message = json.loads(waiting.item)
    message["headers"][HEADER] = {"credential": "of a key that was given up", "signature": ""}
    item = json.dumps(message)
    with session.store.transaction() as transaction:
        transaction.execute("UPDATE journal SET item = ? WHERE run_id = ?", (item, run))
    digest = approvals.digest(item)
    word = (
        ApproveRun(run=run, digest=digest, by="bob", run_before=session.time.at + 60.0)
        if answer == "approve"
        else DenyRun(run=run, digest=digest, by="bob")
    )
    parking.decide(word, BOB, "{}")
    last = session.reports(run)[-1]
    assert (last.kind, last.data["reason"]) == (Kind.RUN_REJECTED, "not_trusted")
    assert session.parked.awaiting(run) == []


def test_a_worker_starts_however_much_waits_for_approval(session: Session, parking: Parking) -> None:
    """Whoever may only ask may ask for much, and what it asked for is there at each start."""
    for _ in range(100):
        session.accept(approve_within=600.0, arguments={"text": "x" * 200_000})
    tracemalloc.start()
    parking.take_up()
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000


def test_a_run_that_was_held_up_after_its_claim_does_not_begin_later_than_its_approver_said(
    session: Session, governor: Governor
) -> None:
    run = session.accept(approve_within=600.0)
    word = ApproveRun(run=run, digest="d", by="bob", run_before=session.time.at + 60.0)
    assert session.parked.approve(word, word.model_dump_json(), run_before=word.run_before)
    claim = session.journal.claim(run, durable=True)
    assert claim is not None
    session.time.passes(61.0)
    with pytest.raises(errors.NotGranted, match="the run was to begin by") as refused:
        governor.grant(claim, registry.get(claim.task), registry.get(claim.task).parse({}))
    assert refused.value.kind == "approval_void"


def told(governor: Governor, *argv: str) -> tuple[str, ...]:
    """Return an argument list as it goes on record."""
    verdict = Verdict(decision=Decision.ALLOW, reason="allowed", rule="it", risk=Risk.READS)
    return governor.told(verdict, BOB, shell.RUN, shell.RunCommand(argv=argv)).argv


def test_what_is_too_long_for_the_record_cannot_be_taken_for_something_else(governor: Governor) -> None:
    assert told(governor, "cat", "/srv/hunter2") == ("cat", "/srv/***")
    below = "/srv/" + "a/" * 400
    one, other = told(governor, "cat", f"{below}notes"), told(governor, "cat", f"{below}shadow")
    assert one != other
    assert all(len(argument) <= 500 for argument in one)
    assert "… 810 characters, SHA-256 " in one[1]
    many = ["x"] * 100
    one, other = told(governor, "echo", *many), told(governor, "echo", *many, "y")
    assert one != other
    assert len(one) == 64
    assert one[-1].startswith("… 38 arguments more, SHA-256 ")
