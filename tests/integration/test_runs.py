"""Runs: states only move forward, whatever the order in which reports come."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import clock, db, errors, names, runs
from fleet.contracts.reports import Kind, Report
from fleet.models import Run, RunState
from tests import factories

ENDS = {
    Kind.RUN_SUCCEEDED,
    Kind.RUN_FAILED,
    Kind.RUN_REJECTED,
    Kind.RUN_EXPIRED,
    Kind.RUN_CANCELLED,
    Kind.RUN_UNKNOWN,
}


def fates(run: str) -> list[Report]:
    """Return every report there can be of a run, contradictions included."""
    host = names.host_of_run(run)

    def told(kind: Kind, attempt: int | None = None, /, **data: Any) -> Report:
        return factories.report(host, kind, run=run, attempt=attempt, data=data)

    ends = [
        told(Kind.RUN_REJECTED, reason="stale", detail="too late"),
        told(Kind.RUN_EXPIRED, expired_at=1.0),
        told(Kind.RUN_CANCELLED, 1, by="bob", begun=False),
        *(told(Kind.RUN_FAILED, attempt, kind="engine_error", message="no") for attempt in (1, 2, 3)),
        *(told(Kind.RUN_UNKNOWN, attempt, message="?") for attempt in (1, 2)),
    ]
    ways = [
        *(told(Kind.RUN_RECOVERING, attempt, how="rerun") for attempt in (1, 2, 3)),
        *(told(kind, attempt) for kind in (Kind.RUN_RETRYING, Kind.RUN_HANDED_BACK) for attempt in (2, 3)),
        *(told(kind, attempt) for kind in (Kind.RUN_ACCEPTED, Kind.RUN_STARTED) for attempt in (2, 3)),
        told(Kind.RUN_AWAITING_APPROVAL, approve_before=1.0),
        told(Kind.RUN_APPROVED, by="bob", run_before=2.0),
    ]
    return [factories.queued(run), *factories.life(run), *ways, *ends]


def rank(run: Run) -> tuple[int, int, int]:
    """Return how far a run is; nothing may make it smaller."""
    if runs.is_final(run.state):
        return (1, 0 if run.state == RunState.UNKNOWN else 1, 0)
    to_come = "attempt" in (run.progress or {})
    order = ["queued", "awaiting_approval", "accepted", "recovering" if to_come else "", "running", "recovering"]
    return (0, run.attempt, order.index(run.state))


def test_a_run_that_goes_well_is_told_in_full(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        assert [runs.apply(session, each) for each in (factories.queued(run), *factories.life(run))] == [
            True,
            True,
            True,
            False,
            True,
        ]
    with db.session(engine) as session:
        found = runs.get(session, run)
        assert (found.state, found.task, found.submitted_by) == ("succeeded", "fleet.containers.restart", "alice")
        assert found.arguments == {"container": "web"}
        assert found.reply == {"container": "web"}
        assert found.progress == {"step": "stopping", "percent": 50}
        assert (found.message, found.error) == (None, None)
        assert found.assigned_at
        assert found.started_at
        assert found.finished_at
        assert found.submitted_at < found.assigned_at < found.started_at < found.finished_at
        (attempt,) = runs.attempts(session, run)
        assert (attempt.number, attempt.state, attempt.epoch, attempt.duration_seconds) == (1, "succeeded", 1, 0.25)


def test_a_run_keeps_its_message_until_it_has_ended(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    accepted, started, progressed, succeeded = factories.life(run)
    with db.session(engine) as session:
        for report in (accepted, factories.queued(run), started, progressed):
            runs.apply(session, report)
        assert runs.get(session, run).message == f'{{"body": "{run}"}}'
        session.expire_all()
        runs.apply(session, succeeded)
        assert runs.get(session, run).message is None


def test_what_a_push_asks_for_is_on_record(engine: Engine) -> None:
    run, older = names.new_run_id("edge-1"), names.new_run_id("edge-1")
    asked = factories.queued(run, not_before=1_750_000_100, limit_seconds=2.5, max_retries=3, retry_of=older)
    with db.session(engine) as session:
        runs.apply(session, asked)
        found = runs.get(session, run)
    assert (found.not_before, found.limit_seconds) == (clock.from_unix(1_750_000_100), 2.5)
    assert (found.max_retries, found.retry_of, found.attempt) == (3, older, 1)


def tell(session: Session, run: str, kind: Kind, attempt: int | None, /, **data: Any) -> Run:
    """Have the run's host report, and return the run."""
    host = names.host_of_run(run)
    runs.apply_many(session, [factories.report(host, kind, run=run, attempt=attempt, data=data)])
    found = runs.get(session, run)
    session.refresh(found)
    return found


def tries(session: Session, run: str) -> list[tuple[int, str]]:
    return [(each.number, each.state) for each in runs.attempts(session, run)]


def test_a_retry_waits_and_says_why_and_until_when(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run, max_retries=1), *factories.life(run)[:3]])
        failed = {"kind": "engine_error", "message": "no", "not_before": 1_750_000_100.5, "duration_seconds": 2.0}
        waiting = tell(session, run, Kind.RUN_RETRYING, 2, **failed)
        assert (waiting.state, waiting.attempt) == ("accepted", 2)
        assert waiting.progress == {
            "step": "waits for its next attempt",
            "percent": None,
            "attempt": 2,
            "not_before": 1_750_000_100.5,
            "error": {"kind": "engine_error", "message": "no"},
        }
        assert waiting.message
        assert (tell(session, run, Kind.RUN_STARTED, 2).state, tries(session, run)) == (
            "running",
            [(1, "failed"), (2, "running")],
        )
        assert tell(session, run, Kind.RUN_FAILED, 2, kind="x", message="still no").state == "failed"
        assert tries(session, run) == [(1, "failed"), (2, "failed")]
        assert runs.attempts(session, run)[0].duration_seconds == 2.0


def test_a_crash_shows_as_recovering_before_and_while_the_run_begins_again(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run), *factories.life(run)[:2]])
        assert tell(session, run, Kind.RUN_RECOVERING, 1, how="rerun").state == "recovering"
        assert tries(session, run) == [(1, "recovering")]
        assert tell(session, run, Kind.RUN_STARTED, 1).state == "recovering", "a late word of the session that ended"
        coming = tell(session, run, Kind.RUN_RECOVERING, 2, how="rerun")
        assert (coming.state, coming.attempt, tries(session, run)) == ("recovering", 2, [(1, "interrupted")])
        assert tell(session, run, Kind.RUN_STARTED, 2).state == "running"
        assert tell(session, run, Kind.RUN_SUCCEEDED, 1, reply={}).state == "running", "of an attempt that is over"
        assert tell(session, run, Kind.RUN_SUCCEEDED, 2, reply={}).state == "succeeded"
        assert tries(session, run)[1] == (2, "succeeded")


@pytest.mark.parametrize("how", [Kind.RUN_RETRYING, Kind.RUN_RECOVERING])
def test_a_run_whose_next_attempt_comes_too_late_has_expired_and_says_which_attempt(engine: Engine, how: Kind) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run, max_retries=1), *factories.life(run)[:3]])
        tell(session, run, how, 2, how="rerun")
        ended = tell(session, run, Kind.RUN_EXPIRED, 2, expired_at=1.0)
        assert (ended.state, ended.attempt) == ("expired", 2)
        assert ended.error == {"kind": "expired", "message": "its time was over before attempt 2 at it began"}
        assert [number for number, _state in tries(session, run)] == [1]


def test_an_attempt_that_has_begun_does_not_expire(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run), *factories.life(run)[:2]])
        for kind in (Kind.RUN_STARTED, Kind.RUN_RECOVERING):
            tell(session, run, kind, 1)
            assert tell(session, run, Kind.RUN_EXPIRED, 1, expired_at=1.0).state != "expired"


def test_a_run_that_its_host_gives_back_is_queued_as_the_next_attempt(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run), *factories.life(run)[:2]])
        handed_back = factories.report("edge-1", Kind.RUN_HANDED_BACK, run=run, attempt=2)
        assert runs.apply_many(session, [handed_back]).handed_back == (run,)
        found = runs.get(session, run)
        assert (found.state, found.attempt, bool(found.message)) == ("queued", 2, True)
        assert tell(session, run, Kind.RUN_ACCEPTED, 1).state == "queued"
        assert tell(session, run, Kind.RUN_ACCEPTED, 2).state == "accepted"
        assert tries(session, run) == [(1, "interrupted")]


def test_a_late_report_settles_what_was_unknown_and_nothing_else_does(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run), *factories.life(run)[:2]])
        assert tell(session, run, Kind.RUN_UNKNOWN, 1, message="nobody saw it").state == "unknown"
        for kind in (Kind.RUN_STARTED, Kind.RUN_RECOVERING, Kind.RUN_RETRYING, Kind.RUN_HANDED_BACK):
            assert tell(session, run, kind, 2).state == "unknown"
        applied = runs.apply_many(session, [factories.life(run)[3]])
        assert applied.settled == ((run, RunState.SUCCEEDED),)
        found = runs.get(session, run)
        session.refresh(found)
        assert (found.state, found.error, found.reply) == ("succeeded", None, {"container": "web"})


@pytest.mark.parametrize(("begun", "tried"), [(True, [(1, "cancelled")]), (False, [])])
def test_a_cancelled_run_says_who_wanted_it(engine: Engine, *, begun: bool, tried: list[tuple[int, str]]) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run), *factories.life(run)[: 2 if begun else 1]])
        ended = tell(session, run, Kind.RUN_CANCELLED, 1, by="bob", reason="wrong host", begun=begun)
        assert (ended.state, ended.error) == (
            "cancelled",
            {"kind": "cancelled", "message": "cancelled by bob: wrong host"},
        )
        assert tries(session, run) == tried


def test_every_order_across_senders_ends_the_same(engine: Engine) -> None:
    ends = set()
    with db.session(engine) as session:
        for position in range(5):
            run = names.new_run_id("edge-1")
            reports = factories.life(run)
            reports.insert(position, factories.queued(run))
            runs.apply_many(session, reports[:2])
            runs.apply_many(session, reports[2:])
            found = runs.get(session, run)
            ends.add(
                (found.state, found.task, found.submitted_by, found.submitted_at, found.message, found.assigned_at)
            )
    assert len(ends) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_order_and_no_repetition_moves_a_run_back(engine: Engine, data: st.DataObject) -> None:
    run = names.new_run_id("edge-1")
    fate = fates(run)
    ends = [index for index, each in enumerate(fate) if each.kind in ENDS]
    ways = [index for index, each in enumerate(fate) if each.kind not in ENDS]
    # ends are rare, so that there is something to move back
    picks = data.draw(st.lists(st.sampled_from([*ways * 8, *ends]), min_size=1, max_size=16))
    reports = [fate[pick] for pick in picks]
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=16, max_size=16))
    seen: list[tuple[tuple[int, int, int], str]] = []
    waiting = iter(reports)
    with db.session(engine) as session:
        for size in sizes:
            runs.apply_many(session, list(itertools.islice(waiting, size)))
            if found := session.get(Run, run):
                session.refresh(found)
                seen.append((rank(found), found.state))
    for before, after in itertools.pairwise(seen):
        assert before[0] <= after[0], f"{before[1]} → {after[1]}"
        assert before[0] != (1, 1, 0) or before[1] == after[1], "what is settled stays as it is"
    ended = {Kind.RUN_FAILED, Kind.RUN_UNKNOWN}
    if any(each.kind in ended and each.attempt == 3 for each in reports):
        assert runs.is_final(seen[-1][1])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_batch_does_what_one_by_one_does(engine: Engine, data: st.DataObject) -> None:
    alone, together = names.new_run_id("edge-1"), names.new_run_id("edge-1")
    picks = data.draw(st.lists(st.integers(0, len(fates(alone)) - 1), min_size=1, max_size=12))
    # principals' reports go first in a batch, as in ingestion
    picks = sorted(picks, key=lambda pick: pick != 0)
    with db.session(engine) as session:
        for pick in picks:
            runs.apply_many(session, [fates(alone)[pick]])
        runs.apply_many(session, [fates(together)[pick] for pick in picks])
        first, second = runs.get(session, alone), runs.get(session, together)
        differing = {"id", "submitted_at", "message"}
        assert first.model_dump(exclude=differing) == second.model_dump(exclude=differing)
        tries = [
            [each.model_dump(exclude={"run_id"}) for each in runs.attempts(session, run)] for run in (alone, together)
        ]
        assert tries[0] == tries[1]


def test_the_first_principal_that_names_a_run_owns_it(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, [factories.queued(run), factories.queued(run, by="mallory", task="x")])
        runs.apply_many(session, [factories.queued(run, by="mallory", task="x")])
        assert runs.get(session, run).submitted_by == "alice"
        assert runs.known_submissions(session, [run, "other"]) == {run: "alice"}


def test_listing_filters_and_gives_the_newest_first(engine: Engine) -> None:
    ids = [names.new_run_id(f"edge-{index % 2}") for index in range(4)]
    with db.session(engine) as session:
        for index, run in enumerate(ids):
            runs.apply(
                session, factories.queued(run, submitted_at=1_750_000_000.0 + index, batch="b" if index else None)
            )
        runs.apply(session, factories.life(ids[0])[0])
    with db.session(engine, write=False) as session:
        assert [run.id for run in runs.listing(session)] == ids[::-1]
        assert [run.id for run in runs.listing(session, host="edge-0", batch="b")] == [ids[2]]
        assert [run.id for run in runs.listing(session, state="accepted")] == [ids[0]]
        assert len(runs.listing(session, task="fleet.containers.restart", limit=3)) == 3


def test_an_unknown_run_is_named_with_the_next_step(engine: Engine) -> None:
    with db.session(engine, write=False) as session:
        with pytest.raises(errors.NotFound, match="fleet task list --host edge-1"):
            runs.get(session, names.new_run_id("edge-1"))
        with pytest.raises(errors.InvalidValue, match="is not a task id"):
            runs.get(session, "nonsense")


def test_every_state_has_its_row_in_the_table_of_moves() -> None:
    assert set(runs.MOVES) == set(RunState)
    final = {"succeeded", "failed", "rejected", "expired", "cancelled", "unknown"}
    assert {state for state in RunState if runs.is_final(state)} == runs.FINAL == final
    assert {state for state in RunState if not runs.MOVES[state]} == final - {"unknown"}
