"""Records of principals: counted from the ledger, and without effect on any level."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from fleet import clock, db, names, records, runs
from fleet.contracts.reports import Kind
from fleet.models import Approval, Principal, ShellSession
from tests import factories

ENDS = {
    "succeeded": Kind.RUN_SUCCEEDED,
    "failed": Kind.RUN_FAILED,
    "rejected": Kind.RUN_REJECTED,
    "cancelled": Kind.RUN_CANCELLED,
    "unknown": Kind.RUN_UNKNOWN,
}
#: In unix seconds.
FIRST, LAST = 1_750_000_000, 1_750_000_400


def test_whoever_has_pushed_nothing_has_an_empty_record(engine: Engine) -> None:
    with db.session(engine, write=False) as session:
        found = records.of(session, "bob")
    assert (found.runs, found.asked, found.since, found.last) == (0, 0, None, None)


def test_a_record_counts_what_became_of_the_principals_own_runs(engine: Engine) -> None:
    with db.session(engine) as session:
        for number, end in enumerate(ENDS.values()):
            run = names.new_run_id("edge-1")
            pushed = factories.queued(run, by="bob", submitted_at=FIRST + 100 * number)
            runs.apply_many(session, [pushed, factories.report("edge-1", end, run=run, attempt=1)])
        runs.apply_many(session, [factories.queued(names.new_run_id("edge-1"), by="carol")])
    with db.session(engine, write=False) as session:
        found = records.of(session, "bob")
    assert found.runs == 5
    assert {word: getattr(found, word) for word in ENDS} == dict.fromkeys(ENDS, 1)
    assert (found.since, found.last) == (clock.from_unix(FIRST), clock.from_unix(LAST))


def approval(run: str, state: str) -> Approval:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    told = {"principal": "bob", "level": "student", "risk": "reads", "rule": "r", "digest": "0" * 64}
    return Approval(run_id=run, host_id="edge-1", state=state, asked_at=at, approve_before=at, **told)


def denied(run: str) -> ShellSession:
    told = {"principal": "bob", "level": "student", "risk": "reads", "decision": "deny", "reason": "denied"}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return ShellSession(run_id=run, host_id="edge-1", task="fleet.shell.run", asked_at=at, **told)


def test_a_record_says_what_others_answered_and_the_policy_denied(engine: Engine) -> None:
    states = ["pending", "approved", "approved", "denied", "expired", "cancelled", "refused"]
    with db.session(engine) as session:
        for state in states:
            run = names.new_run_id("edge-1")
            runs.apply_many(session, [factories.queued(run, by="bob")])
            session.add(approval(run, state))
        refused = names.new_run_id("edge-1")
        runs.apply_many(session, [factories.queued(refused, by="bob")])
        session.add(denied(refused))
    with db.session(engine, write=False) as session:
        found = records.of(session, "bob")
    assert (found.asked, found.waiting, found.approved, found.denied, found.expired) == (7, 1, 2, 1, 1)
    assert found.denied_by_policy == 1


def test_what_a_host_says_in_a_principals_name_is_not_on_its_record(engine: Engine) -> None:
    """Its own run.queued never came: anybody's host could make one up."""
    run = names.new_run_id("edge-1")
    with db.session(engine) as session:
        runs.apply_many(session, factories.life(run)[:1])
        session.add(approval(run, "denied"))
        session.add(denied(run))
    with db.session(engine, write=False) as session:
        found = records.of(session, "bob")
    assert (found.runs, found.asked, found.denied, found.denied_by_policy) == (0, 0, 0, 0)


def test_no_record_however_good_changes_a_level(engine: Engine) -> None:
    with db.session(engine) as session:
        factories.introduce(session, "bob")
        session.get_one(Principal, "bob").level = "student"
    for _ in range(100):
        run = names.new_run_id("edge-1")
        with db.session(engine) as session:
            runs.apply_many(session, [factories.queued(run, by="bob"), *factories.life(run)])
    with db.session(engine, write=False) as session:
        assert records.of(session, "bob").succeeded == 100
        assert session.get_one(Principal, "bob").level == "student"
