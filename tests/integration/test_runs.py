"""Runs: states only move forward, whatever the order in which reports come."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from fleet import db, errors, names, runs
from fleet.contracts.reports import Kind, Report
from fleet.models import RunState
from tests import factories

RANK = {RunState.QUEUED: 0, RunState.ACCEPTED: 1, RunState.RUNNING: 2}


def fates(run: str) -> list[Report]:
    """Return every report there can be of a run, contradictions included."""
    host = names.host_of_run(run)
    ends = [
        factories.report(host, Kind.RUN_FAILED, run=run, attempt=1, data={"kind": "engine_error", "message": "no"}),
        factories.report(host, Kind.RUN_REJECTED, run=run, data={"reason": "stale", "detail": "too late"}),
        factories.report(host, Kind.RUN_EXPIRED, run=run, data={"expired_at": 1.0}),
    ]
    return [factories.queued(run), *factories.life(run), *ends]


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


def test_a_queued_run_keeps_its_message_until_the_host_has_it(engine: Engine) -> None:
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply(session, factories.queued(run))
        assert runs.get(session, run).message == f'{{"body": "{run}"}}'
        session.expire_all()
        runs.apply(session, factories.life(run)[0])
        assert runs.get(session, run).message is None


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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_order_and_no_repetition_moves_a_run_back(engine: Engine, data: st.DataObject) -> None:
    run = names.new_run_id("edge-1")
    reports = data.draw(st.lists(st.sampled_from(fates(run)), min_size=1, max_size=12))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=12, max_size=12))
    seen: list[RunState] = []
    waiting = iter(reports)
    with db.session(engine) as session:
        for size in sizes:
            runs.apply_many(session, list(itertools.islice(waiting, size)))
            for found in runs.listing(session):
                session.refresh(found)
                if found.id == run:
                    seen.append(RunState(found.state))
        said = {each.kind for each in reports}
    for before, after in itertools.pairwise(seen):
        assert before == after or after in runs.MOVES[before], f"{before} → {after}"
    assert [RANK.get(state, 3) for state in seen] == sorted(RANK.get(state, 3) for state in seen)
    if said & {Kind.RUN_SUCCEEDED, Kind.RUN_FAILED}:
        assert runs.is_final(seen[-1])


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
    assert {state for state in RunState if runs.is_final(state)} == {"succeeded", "failed", "rejected", "expired"}
