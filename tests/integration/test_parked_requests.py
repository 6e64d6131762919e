"""What is shown of a run that waits, on a fleet as it runs: the very request that its host has parked."""

from pathlib import Path

from fleet import approvals, db, records, runs
from fleet.models import Approval
from tests.services.office import TOUCH, answer, approval_of, ask, office, policy_text, rule, session_of, standing
from tests.services.system import System
from tests.services.waiting import until

__all__ = ["office", "standing"]


def test_what_is_shown_is_what_waits_and_whoever_answers_is_on_record(office: System, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    rule(office, policy_text(tmp_path))
    run, digest = ask(office, TOUCH, str(canary), description="a test")
    asked = approval_of(office, run)
    assert (asked.state, asked.principal, asked.digest, asked.risk) == ("pending", "stu", digest, "changes")
    with db.session(office.engine, write=False) as session:
        shown = approvals.request(asked, runs.get(session, run))
    assert shown is not None
    assert (shown.task, shown.arguments["argv"]) == ("fleet.shell.run", [TOUCH, str(canary)])
    assert (shown.envelope.submitted_by, shown.envelope.host, shown.envelope.description) == ("stu", "h1", "a test")
    answer(office, "boss", run, digest)
    office.record(run, state="succeeded")
    session = until(lambda: (found := session_of(office, run)).outcome and found, "the session has ended")
    assert (session.outcome, session.exit_code, session.principal, session.approved_by) == ("exited", 0, "stu", "boss")
    assert session.argv == [TOUCH, str(canary)]
    assert session.started_at is not None
    with db.session(office.engine, write=False) as opened:
        decided = opened.get_one(Approval, run)
        assert (decided.state, decided.decided_by) == ("approved", "boss")
        assert approvals.request(decided, runs.get(opened, run)) is None, "the message goes with the end of the run"
        record = records.of(opened, "stu")
    assert (record.runs, record.succeeded, record.asked, record.approved) == (1, 1, 1, 1)
