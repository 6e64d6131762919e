"""The pipeline: nothing is performed that the journal does not hold, and what was performed is in it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import errors, names
from fleet.contracts import Restart
from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind
from tests.services.pipelines import INBOX, RESTART, Part
from tests.services.sessions import HOST, Session
from tests.services.waiting import until


@pytest.fixture
def part(session: Session, client: Any, tmp_path: Path) -> Iterator[Part]:
    with Part(session, client, tmp_path).at_work() as made:
        yield made


def test_the_contract_of_these_tests_is_one_whose_runs_must_not_begin_twice() -> None:
    assert RESTART.restart is not Restart.RERUN


def test_a_run_is_performed_once_and_ends_with_its_reply(part: Part) -> None:
    run_id = part.deliver()
    for _ in range(2):
        part.pipeline.carry_out(RESTART, run_id)
    assert part.performed == [run_id]
    assert part.session.kinds(run_id) == [Kind.RUN_ACCEPTED, Kind.RUN_STARTED, Kind.RUN_SUCCEEDED]
    assert part.client.llen(INBOX) == 0
    assert part.running.ids() == []


def test_when_the_effect_begins_the_claim_is_on_disk_and_the_message_has_left(part: Part) -> None:
    run_id = part.deliver()
    seen: list[Any] = []

    def look() -> None:
        seen.append(part.session.rows("state, handed_over"))
        seen.append(part.client.llen(INBOX))

    part.effect = look
    part.pipeline.carry_out(RESTART, run_id)
    assert seen == [[("started", 1)], 0]


def test_nothing_is_performed_whose_claim_the_disk_does_not_keep_and_the_worker_is_told(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    run_id = part.deliver()
    monkeypatch.setattr("os.fdatasync", broken)
    with pytest.raises(sqlite3.OperationalError, match="cannot be synced"):
        part.pipeline.carry_out(RESTART, run_id)
    assert part.performed == []
    assert part.unusable
    assert part.client.llen(INBOX) == 1
    assert part.session.journal.unclaim(run_id)  # so the next session begins it


def test_the_worker_is_told_when_the_end_of_a_run_cannot_be_written_down(part: Part) -> None:
    run_id = part.deliver()

    def fill_the_disk() -> None:
        with part.session.store.transaction() as transaction:
            transaction.execute("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(FAIL, 'full'); END")

    part.effect = fill_the_disk
    with pytest.raises(sqlite3.Error, match="full"):
        part.pipeline.carry_out(RESTART, run_id)
    assert part.unusable
    assert [claim.run_id for claim in part.session.journal.interrupted()] == [run_id]
    assert part.running.ids() == []


def test_a_run_that_was_cancelled_meanwhile_is_not_performed_and_its_message_leaves(part: Part) -> None:
    run_id = part.deliver()
    part.session.unbegun.cancel(CancelRun(run=run_id, by="ann"))
    part.pipeline.carry_out(RESTART, run_id)
    assert part.performed == []
    until(lambda: part.client.llen(INBOX) == 0, "the message has left")


def test_a_run_whose_message_a_newer_session_has_is_not_performed_and_is_forgotten_here(part: Part) -> None:
    run_id = part.deliver()
    part.client.set(names.epoch(HOST), 2)
    part.client.delete(INBOX)
    part.pipeline.carry_out(RESTART, run_id)
    assert part.performed == []
    assert part.session.rows("run_id") == []


REVOKED = errors.NotGranted("the credential of principal ann is revoked", kind="credential_revoked")
UNFIT = errors.InvalidArguments(RESTART.name, {"container": "is missing"}, expected="container")


@pytest.mark.parametrize(
    ("objection", "kind"),
    [(REVOKED, "credential_revoked"), (UNFIT, "invalid_arguments")],
    ids=["revoked", "arguments"],
)
def test_what_was_let_in_and_may_not_begin_any_more_ends_without_effect(
    part: Part, objection: errors.FleetError, kind: str
) -> None:
    run_id = part.deliver(max_retries=3)
    part.objection = objection
    with pytest.raises(type(objection)):
        part.pipeline.carry_out(RESTART, run_id)
    assert part.performed == []
    ended = part.session.reports(run_id)[-1]
    assert (ended.kind, ended.data["kind"]) == (Kind.RUN_FAILED, kind)
    assert part.running.ids() == []


def test_an_error_of_any_kind_ends_the_run(part: Part) -> None:
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    part.effect = fail
    run_id = part.deliver()
    with pytest.raises(errors.TaskFailed, match="by zero"):
        part.pipeline.carry_out(RESTART, run_id)
    assert part.session.reports(run_id)[-1].data["kind"] == "internal_error"


def test_neither_the_record_nor_the_log_of_a_run_that_broke_shows_a_known_secret(
    part: Part, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("it was hunter2")

    part.effect = fail
    run_id = part.deliver()
    with pytest.raises(errors.TaskFailed):
        part.pipeline.carry_out(RESTART, run_id)
    assert part.session.reports(run_id)[-1].data["message"] == "RuntimeError: it was ***"
    assert "run.broken" in caplog.text
    assert "Traceback" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_run_that_the_pool_does_not_take_ends_and_its_message_leaves(part: Part) -> None:
    run_id = part.deliver()
    part.pipeline.give_up(run_id, "the pool is closed")
    assert part.session.kinds(run_id)[-1] is Kind.RUN_FAILED
    until(lambda: part.client.llen(INBOX) == 0, "the message has left")
