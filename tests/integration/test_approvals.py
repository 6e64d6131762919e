"""Approvals and sessions on both databases: what hosts report of them, whatever is missing and however it ends."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from fleet import approvals, audit, clock, db, errors, names, runs, sessions, shapes
from fleet.cli import recorded
from fleet.contracts.control import ApproveRun
from fleet.contracts.reports import Kind, Report
from fleet.models import Approval, AuditEvent, Run, ShellSession
from tests import factories
from tests.services import governed
from tests.services.broker import Broker
from workers.control import recording
from workers.control.batches import Batch
from workers.control.ingest import Ingest

Step = tuple[Kind, dict[str, Any]]


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


class Plane:
    """A control plane with one host, and everything that it is told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with db.session(engine) as session:
            factories.enroll(session, "edge-1")
            factories.introduce(session, "alice", "bob")

    def take(self, *reports: Report) -> None:
        with db.session(self.engine) as session:
            for each in reports:
                item = factories.signed(each).encode()
                recording.record(session, [Batch(sender=each.sender, items=[item])])

    def take_at_once(self, *reports: Report) -> None:
        items = [factories.signed(each).encode() for each in reports]
        with db.session(self.engine) as session:
            recording.record(session, [Batch(sender=reports[0].sender, items=items)])

    def run(self, *steps: Step, pushed: bool = True) -> str:
        """Have a run pushed, and its host say these things of it; return its id."""
        run = names.new_run_id("edge-1")
        self.take(*([governed.queued(run)] if pushed else []), *governed.told(run, *steps))
        return run

    def approval(self, run: str) -> Approval:
        with db.session(self.engine, write=False) as session:
            return approvals.get(session, run)

    def session(self, run: str) -> ShellSession:
        with db.session(self.engine, write=False) as session:
            return sessions.get(session, run)

    def ledger(self, run: str) -> Run:
        with db.session(self.engine, write=False) as session:
            return runs.get(session, run)

    def events(self, event: str) -> list[AuditEvent]:
        with db.session(self.engine, write=False) as session:
            assert audit.verify(session) is None
            return audit.events(session, event=event, after_id=0)


@pytest.fixture
def plane(engine: Engine) -> Plane:
    return Plane(engine)


def test_a_run_that_waits_is_on_record_with_who_what_why_and_until_when(plane: Plane) -> None:
    run = plane.run(governed.awaiting())
    found, session = plane.approval(run), plane.session(run)
    assert plane.ledger(run).state == "awaiting_approval"
    assert (found.state, found.host_id, found.principal, found.level) == ("pending", "edge-1", "alice", "student")
    assert (found.risk, found.rule, found.digest) == ("reads", "student: every listed command asks", governed.DIGEST)
    assert found.asked_at == clock.from_unix(governed.JUDGED_AT)
    assert found.approve_before == clock.from_unix(governed.APPROVE_BEFORE)
    assert (found.decided_by, found.decided_at, found.run_before, found.reason) == (None, None, None, "")
    assert (session.decision, session.reason, session.argv) == ("ask", "needs_approval", list(governed.ARGV))
    assert (session.policy, session.cwd, session.outcome, session.approved_by) == (3, "/", None, None)


def test_an_approved_run_goes_on_and_both_names_are_on_record(plane: Plane) -> None:
    run = plane.run(governed.awaiting(), governed.approved(), governed.STARTED, governed.ended(), governed.SUCCEEDED)
    found, session = plane.approval(run), plane.session(run)
    assert (found.state, found.decided_by, found.reason) == ("approved", "bob", "it only looks")
    assert found.decided_at == clock.from_unix(governed.JUDGED_AT + 1)
    assert found.run_before == clock.from_unix(governed.RUN_BEFORE)
    assert (session.principal, session.approved_by, session.outcome) == ("alice", "bob", "exited")
    assert session.started_at == clock.from_unix(governed.JUDGED_AT + 10)
    assert session.finished_at == clock.from_unix(governed.JUDGED_AT + 3)
    assert (session.exit_code, session.duration_seconds, session.stdout) == (0, 0.25, "up 3 days\n")
    assert (session.stdout_bytes, session.stdout_sha256, session.truncated) == (10, "ab" * 32, False)
    assert plane.ledger(run).state == "succeeded"


def test_a_command_that_nobody_has_to_approve_is_a_session_and_no_approval(plane: Plane) -> None:
    run = plane.run(governed.accepted(), governed.STARTED)
    session = plane.session(run)
    assert (session.decision, session.started_at) == ("allow", clock.from_unix(governed.JUDGED_AT + 1))
    with pytest.raises(errors.NotFound, match="never asked for approval; `fleet approval list --state all`"):
        plane.approval(run)


def test_what_starts_in_a_later_batch_than_it_was_accepted_in_is_a_session_that_has_started(plane: Plane) -> None:
    run = names.new_run_id("edge-1")
    first, second = governed.told(run, governed.accepted(), governed.STARTED)
    plane.take_at_once(first)
    plane.take_at_once(second)
    assert plane.session(run).started_at == clock.from_unix(governed.JUDGED_AT + 1)


def test_what_the_policy_denies_is_on_record_like_what_is_carried_out(plane: Plane) -> None:
    run = plane.run(governed.rejected())
    session = plane.session(run)
    assert (session.decision, session.outcome) == ("deny", "rejected")
    assert session.detail == "no entry has these arguments"
    assert session.finished_at is not None
    assert session.started_at is None


@pytest.mark.parametrize(
    ("steps", "state", "by", "reason", "outcome"),
    [
        ([governed.denied()], "denied", "bob", "not today", "rejected"),
        ([governed.rejected()], "refused", None, "no entry has these arguments", "rejected"),
        ([governed.EXPIRED], "expired", None, "", "expired"),
        ([governed.CANCELLED], "cancelled", None, "cancelled by carol: a mistake", "cancelled"),
        ([governed.UNKNOWN], "expired", None, "", "unknown"),
        ([governed.approved(), governed.EXPIRED], "expired", "bob", "it only looks", "expired"),
        ([governed.approved(), governed.rejected()], "refused", "bob", "no entry has these arguments", "rejected"),
        ([governed.approved(), governed.CANCELLED], "approved", "bob", "it only looks", "cancelled"),
        ([governed.approved(), governed.STARTED, governed.UNKNOWN], "approved", "bob", "it only looks", "unknown"),
        ([governed.approved(), governed.STARTED, governed.ended("time_limit")], "approved", "bob", None, "time_limit"),
    ],
    ids=[
        "denied",
        "refused",
        "expired",
        "cancelled",
        "unknown",
        "approved too late to begin",
        "approved and refused at last",
        "approved and cancelled",
        "begun and lost",
        "begun and ended",
    ],
)
@pytest.mark.parametrize("taken", ["one by one", "at once"])
def test_however_it_ends_approval_and_session_say_so(  # noqa: PLR0917 - pytest gives them by name
    plane: Plane, steps: list[Step], state: str, by: str | None, reason: str | None, outcome: str, taken: str
) -> None:
    run = names.new_run_id("edge-1")
    plane.take(governed.queued(run))
    reports = governed.told(run, governed.awaiting(), *steps)
    (plane.take_at_once if taken == "at once" else plane.take)(*reports)
    found = plane.approval(run)
    assert (found.state, found.decided_by) == (state, by)
    assert reason is None or found.reason == reason
    assert plane.session(run).outcome == outcome


def test_a_host_that_goes_on_although_nobody_is_known_to_have_answered_waits_no_more(plane: Plane) -> None:
    """The report of the answer was lost, which is on record as missing."""
    run = plane.run(governed.awaiting(), governed.STARTED)
    found = plane.approval(run)
    assert (found.state, found.decided_by) == ("cancelled", None)
    assert "its host went on" in found.reason


def test_a_run_that_is_asked_for_anew_is_shown_as_it_was_judged_last(plane: Plane) -> None:
    anew = governed.awaiting(
        verdict=governed.verdict(rule="another rule", risk="changes"), approve_before=2_000_000_000
    )
    run = plane.run(governed.awaiting(), anew)
    found = plane.approval(run)
    assert (found.state, found.rule, found.risk) == ("pending", "another rule", "changes")
    assert found.approve_before == clock.from_unix(2_000_000_000)
    assert plane.session(run).rule == "another rule"


def test_a_run_that_was_given_back_after_its_approval_waits_for_another(plane: Plane) -> None:
    run = names.new_run_id("edge-1")
    steps = (governed.awaiting(), governed.approved(), governed.STARTED, (Kind.RUN_HANDED_BACK, {}))
    first = governed.told(run, *steps)
    [anew] = governed.told(run, governed.awaiting(), first_seq=5)
    given_back, anew = (each.model_copy(update={"attempt": 2}) for each in (first[3], anew))
    plane.take(governed.queued(run), *first[:3], given_back)
    plane.take(anew.model_copy(update={"at": first[3].at + 5.0}))
    asked = plane.approval(run)
    assert plane.ledger(run).state == "awaiting_approval"
    assert (asked.state, asked.decided_by, asked.decided_at, asked.run_before) == ("pending", None, None, None)
    assert plane.approval(run).reason == ""


def test_an_approval_by_which_a_run_began_is_one_also_where_the_next_attempt_came_too_late(plane: Plane) -> None:
    run = names.new_run_id("edge-1")
    steps = (governed.awaiting(), governed.approved(), governed.STARTED, (Kind.RUN_RETRYING, {}), governed.EXPIRED)
    reports = governed.told(run, *steps)
    later = (each.model_copy(update={"attempt": 2}) for each in reports[3:])
    plane.take(governed.queued(run), *reports[:3], *later)
    assert (plane.ledger(run).state, plane.approval(run).state) == ("expired", "approved")


def test_an_approval_by_which_nothing_began_has_expired_also_where_another_let_an_attempt_begin(plane: Plane) -> None:
    run = names.new_run_id("edge-1")
    steps = (governed.awaiting(), governed.approved(), governed.STARTED, (Kind.RUN_HANDED_BACK, {}))
    anew = (governed.awaiting(), governed.approved(), governed.EXPIRED)
    reports = governed.told(run, *steps, *anew)
    later = (each.model_copy(update={"attempt": 2}) for each in reports[3:])
    plane.take(governed.queued(run), *reports[:3], *later)
    assert (plane.ledger(run).state, plane.approval(run).state) == ("expired", "expired")


def test_another_contract_that_waits_is_an_approval_and_no_session(plane: Plane) -> None:
    told = governed.verdict(task="fleet.containers.restart", argv=[], risk="changes")
    run = plane.run(governed.awaiting(verdict=told))
    assert (plane.approval(run).state, plane.approval(run).risk) == ("pending", "changes")
    with pytest.raises(errors.NotFound, match="fleet audit list --kind shell"):
        plane.session(run)


def test_a_host_may_be_heard_before_the_principal_that_pushed(plane: Plane) -> None:
    run = plane.run(governed.awaiting(), governed.approved(), pushed=False)
    assert (plane.ledger(run).task, plane.approval(run).state) == ("", "approved")
    plane.take(governed.queued(run))
    assert (plane.ledger(run).task, plane.ledger(run).state) == ("fleet.shell.run", "accepted")
    with db.session(plane.engine, write=False) as session:
        [(approval, found)] = approvals.listing(session)
    assert (approval.run_id, found.submitted_by) == (run, "alice")


def test_a_sessions_last_attempt_counts(plane: Plane) -> None:
    run = plane.run(
        governed.accepted(),
        governed.STARTED,
        governed.ended("unknown", exit_code=None),
        governed.ended("done", stdout="", stdout_bytes=0),
        governed.CANCELLED,
    )
    session = plane.session(run)
    assert (session.outcome, session.exit_code, session.stdout_bytes) == ("done", 0, 0)


def test_what_was_tried_again_stays_on_record(plane: Plane) -> None:
    run = names.new_run_id("edge-1")
    over = governed.ended("time_limit", exit_code=None, stdout="first\n", stdout_bytes=6)
    first = governed.told(run, governed.accepted(), governed.STARTED, over)
    again = governed.told(run, governed.STARTED, governed.ended(stdout="second\n"), first_seq=4)
    plane.take_at_once(*first, *(report.model_copy(update={"attempt": 2}) for report in again))
    session = plane.session(run)
    assert (session.attempt, session.outcome, session.stdout) == (2, "exited", "second\n")
    (earlier,) = session.earlier
    assert (earlier["attempt"], earlier["outcome"], earlier["stdout"]) == (1, "time_limit", "first\n")
    assert earlier["finished_at"] == clock.from_unix(governed.JUDGED_AT + 2).isoformat()
    shown = dict(recorded.rows({**shapes.shell_session(session), "description": ""}))
    assert (shown["Attempt"], shown["Before it"]) == (2, ["1: time_limit after 250ms, 6 bytes to stdout"])


def test_what_a_program_wrote_is_in_the_sessions_row_and_not_in_the_audit(plane: Plane) -> None:
    run = plane.run(governed.accepted(), governed.STARTED, governed.ended(stdout="hush hush", stderr="psst"))
    assert (plane.session(run).stdout, plane.session(run).stderr) == ("hush hush", "psst")
    [event] = plane.events("session.ended")
    assert (event.run_id, event.data["exit_code"], event.data["stdout_bytes"]) == (run, 0, 10)
    assert event.data["stdout_sha256"] == "ab" * 32
    assert not {"stdout", "stderr"} & event.data.keys()


def test_who_approved_and_what_they_signed_stays_in_the_audit_however_much_they_had_to_say(plane: Plane) -> None:
    reason = "\U0001f600" * 1024
    word = ApproveRun(run="edge-1:x", digest="d" * 64, by="bob", reason=reason, run_before=4e9)
    signed = json.dumps({"message": word.model_dump_json(), "credential": "c" * 8192, "signature": "s" * 86})
    run = plane.run(governed.awaiting(), governed.approved(reason=reason, signed=signed))
    [event] = plane.events("run.approved")
    assert (event.data["by"], event.data["signed"]) == ("bob", signed)
    plane.take(*governed.told(run, governed.approved(signed="s" * 200_000), first_seq=3))
    assert plane.events("run.approved")[-1].data["truncated"]


def test_an_answer_that_does_not_count_is_an_event_of_the_run_and_nothing_else(plane: Plane) -> None:
    refused = (Kind.APPROVAL_REFUSED, {"by": "alice", "reason": "own_run", "detail": "alice asked for it herself"})
    run = plane.run(governed.awaiting(), refused)
    assert (plane.approval(run).state, plane.approval(run).decided_by) == ("pending", None)
    [event] = plane.events("approval.refused")
    assert (event.run_id, event.data["by"], event.data["reason"]) == (run, "alice", "own_run")


def test_which_policy_a_host_goes_by_is_in_the_audit(plane: Plane) -> None:
    plane.take(factories.report("edge-1", Kind.HOST_POLICY_TAKEN, data={"version": 7}))
    [event] = plane.events("host.policy_taken")
    assert (event.host_id, event.run_id, event.data) == ("edge-1", None, {"version": 7})


LONG = "x" * 5000
#: Of the calendar in UTC; east of Greenwich it has no date any more, and whoever looks there sees an error.
LAST_MOMENT = 253402300799.0


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Kind.RUN_AWAITING_APPROVAL, {}),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(digest="nonsense")[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(approve_before=1e300)[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(verdict=governed.verdict(principal=LONG))[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(verdict=governed.verdict(risk="fun"))[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(verdict=governed.verdict(policy=2**40))[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(approve_before=LAST_MOMENT)[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(verdict=governed.verdict(argv=["x"] * 300))[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(verdict=governed.verdict(argv=[LONG]))[1]),
        (Kind.RUN_AWAITING_APPROVAL, governed.awaiting(verdict=governed.verdict(cwd=LONG))[1]),
        (Kind.RUN_ACCEPTED, {"verdict": {"decision": "maybe"}}),
        (Kind.RUN_APPROVED, {"by": "bob"}),
        (Kind.RUN_APPROVED, governed.approved(by=LONG)[1]),
        (Kind.RUN_APPROVED, governed.approved(run_before="soon")[1]),
        (Kind.RUN_REJECTED, governed.denied(by="")[1]),
        (Kind.SESSION_ENDED, governed.ended("exploded")[1]),
        (Kind.SESSION_ENDED, governed.ended(started_at=-1e18)[1]),
        (Kind.SESSION_ENDED, governed.ended(started_at=LAST_MOMENT)[1]),
        (Kind.SESSION_ENDED, governed.ended(duration_seconds=1e300)[1]),
        (Kind.SESSION_ENDED, governed.ended(duration_seconds=-1.0)[1]),
        (Kind.SESSION_ENDED, governed.ended(stdout=LONG * 2)[1]),
        (Kind.SESSION_ENDED, governed.ended(stdout_bytes=2**60)[1]),
        (Kind.SESSION_ENDED, governed.ended(exit_code=2**40)[1]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_does_not_fit_is_refused_and_the_rest_goes_on(plane: Plane, kind: Kind, data: dict[str, Any]) -> None:
    run = names.new_run_id("edge-1")
    plane.take(*governed.told(run, (kind, data), governed.awaiting()))
    [refused] = plane.events("report.refused")
    assert refused.data["reason"] == "data do not fit"
    assert plane.approval(run).state == "pending"


def test_no_host_answers_for_a_run_of_another(plane: Plane) -> None:
    run = plane.run(governed.awaiting())
    with db.session(plane.engine) as session:
        factories.enroll(session, "edge-2")
    [forged] = governed.told(run, governed.approved())
    plane.take(forged.model_copy(update={"sender": "edge-2"}))
    assert plane.approval(run).state == "pending"
    [refused] = plane.events("report.refused")
    assert "another host's" in refused.data["detail"]


def test_text_of_hosts_that_no_database_takes_is_kept_all_the_same(plane: Plane) -> None:
    evil = "a\x00b"
    run = plane.run(
        governed.accepted(verdict=governed.verdict("allow", argv=["/bin/echo", evil])), governed.ended(detail=evil)
    )
    assert "\x00" not in plane.session(run).argv[1] + plane.session(run).detail


def test_the_newest_of_each_are_listed_oldest_first(plane: Plane) -> None:
    waiting = [plane.run(governed.awaiting())]
    with db.session(plane.engine, write=False) as session:
        assert [row.run_id for row, _ in approvals.listing(session, state="pending")] == waiting
        assert approvals.listing(session, state="denied") == []
        assert approvals.listing(session, host="edge-2") == []
        assert [row.run_id for row in sessions.listing(session, principal="alice", host="edge-1")] == waiting
        assert sessions.listing(session, principal="bob") == []
        assert sessions.listing(session, since=clock.now()) == []
        assert [row.run_id for row in sessions.listing(session, run=waiting[0])] == waiting


#: How a governed run may go, from the moment at which it is parked.
LIVES: dict[str, tuple[list[Step], str, str | None]] = {
    "carried out": (
        [governed.approved(), governed.STARTED, governed.ended(), governed.SUCCEEDED],
        "approved",
        "exited",
    ),
    "denied": ([governed.denied()], "denied", "rejected"),
    "refused": ([governed.rejected()], "refused", "rejected"),
    "expired": ([governed.EXPIRED], "expired", "expired"),
    "too late": ([governed.approved(), governed.EXPIRED], "expired", "expired"),
    "cancelled": ([governed.CANCELLED], "cancelled", "cancelled"),
    "waits": ([], "pending", None),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_comes_again_and_in_whatever_pieces_it_ends_as_its_host_said(
    engine: Engine, client: "redis.Redis", data: st.DataObject
) -> None:
    host = f"edge-{names.new_run_id('x')[-12:]}"
    with db.session(engine) as session:
        factories.enroll(session, host)
        if not session.get(factories.Principal, "alice"):
            factories.introduce(session, "alice")
    lease, voice = factories.HeldLease(client), factories.voice(engine)
    ingest = Ingest(engine=engine, client=client, lease=lease, voice=voice)
    run = names.new_run_id(host)
    steps, state, outcome = LIVES[data.draw(st.sampled_from(sorted(LIVES)), label="life")]
    own = governed.told(run, governed.awaiting(), *steps)
    pushed, sent = False, 0
    for step, number in data.draw(
        st.lists(st.tuples(st.sampled_from(["host", "again", "principal", "ingest"]), st.integers(0, 3)), max_size=20),
        label="steps",
    ):
        if step == "host":
            factories.push(client, *own[sent : sent + 1 + number])
            sent = min(len(own), sent + 1 + number)
        elif step == "again" and sent:
            factories.push(client, *own[number % sent : sent])
        elif step == "principal" and not pushed:
            factories.push(client, governed.queued(run))
            pushed = True
        elif step == "ingest":
            ingest.step()
    factories.push(client, *own[sent:], *([] if pushed else [governed.queued(run)]))
    while ingest.step():
        pass
    with db.session(engine, write=False) as session:
        assert approvals.get(session, run).state == state
        assert sessions.get(session, run).outcome == outcome
        assert audit.verify(session) is None
        told = [event.seq for event in audit.events(session, actor=host, after_id=0)]
    assert told == [report.seq for report in own], "each report is recorded once, in its order"
