"""Lives of runs at random, through crashes: the real journal, outbox and endings against a model of what may happen.

The model has the broker (where each message lies), what the worker has in hand, and every effect that was begun. The
rules do what consumer, pool, recovery and control list do with the journal; hypothesis looks for an order of them in
which a run begins twice, is forgotten, or is reported wrongly. A crash copies the file as it lies there, as the end of
a process would leave it, and the next session opens the copy.
"""

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.contracts import Restart
from fleet.contracts.control import CancelRun
from fleet.contracts.envelope import LONGEST_WAY_SECONDS, Envelope, Retry
from fleet.contracts.reports import Kind, Report
from tests.services.sessions import HOST, HOST_KEY, TASK, BrokerTime, Session, item
from workers.host.admission import Admission
from workers.host.claim import Claim
from workers.host.endings import MOST_CRASHES, Interruption

FINAL = frozenset(
    {
        Kind.RUN_SUCCEEDED,
        Kind.RUN_FAILED,
        Kind.RUN_REJECTED,
        Kind.RUN_EXPIRED,
        Kind.RUN_CANCELLED,
        Kind.RUN_UNKNOWN,
    }
)
#: With these the attempt that they name is the next one.
GROWING = frozenset({Kind.RUN_RETRYING, Kind.RUN_RECOVERING, Kind.RUN_HANDED_BACK})
_BEGUN_IS_FOLLOWED_BY = frozenset(
    {
        Kind.RUN_PROGRESSED,
        Kind.RUN_RETRYING,
        Kind.RUN_RECOVERING,
        Kind.RUN_HANDED_BACK,
        Kind.RUN_SUCCEEDED,
        Kind.RUN_FAILED,
        Kind.RUN_CANCELLED,
        Kind.RUN_UNKNOWN,
    }
)
#: Which report of a run may follow which; None is before the first.
FOLLOWED_BY: dict[Kind | None, frozenset[Kind]] = {
    None: frozenset({Kind.RUN_ACCEPTED, Kind.RUN_REJECTED, Kind.RUN_EXPIRED, Kind.RUN_CANCELLED}),
    # Accepted once more, or refused for its age: it was disowned, because its message was in the broker.
    Kind.RUN_ACCEPTED: frozenset(
        {Kind.RUN_STARTED, Kind.RUN_EXPIRED, Kind.RUN_CANCELLED, Kind.RUN_ACCEPTED, Kind.RUN_REJECTED}
    ),
    # Started or accepted once more: claimed, but the effect never began.
    Kind.RUN_STARTED: _BEGUN_IS_FOLLOWED_BY
    | {Kind.RUN_STARTED, Kind.RUN_ACCEPTED, Kind.RUN_EXPIRED, Kind.RUN_REJECTED},
    Kind.RUN_PROGRESSED: _BEGUN_IS_FOLLOWED_BY,
    Kind.RUN_RETRYING: frozenset({Kind.RUN_STARTED, Kind.RUN_CANCELLED}),
    Kind.RUN_RECOVERING: _BEGUN_IS_FOLLOWED_BY | {Kind.RUN_STARTED},
    Kind.RUN_HANDED_BACK: frozenset({Kind.RUN_ACCEPTED, Kind.RUN_EXPIRED, Kind.RUN_CANCELLED, Kind.RUN_REJECTED}),
}


_TWO_DAYS = 2 * 86_400.0
_LONG_ENOUGH_TO_FORGET = 62 * 86_400.0


@dataclass
class Run:
    """What the model knows of one run."""

    id: str
    restart: Restart
    envelope: Envelope
    #: absent, accepted, claimed, begun, handed_back, ended
    state: str = "absent"
    attempt: int = 0
    #: the message of the run, wherever it has got to
    queued: int = 0
    inbox: int = 0
    #: its message stays in the inbox until the claim is secured
    held: bool = False
    #: the worker has it in hand, so the journal is not asked for it
    in_hand: bool = False
    due_at: float = 0.0
    claim: Claim | None = None
    #: attempts whose effect was begun
    effects: list[int] = field(default_factory=list)
    #: one more effect was asked for: a retry, or a restart that may repeat it
    may_begin: bool = True
    crashes: int = 0
    failures: int = 0
    cancelled: bool = False
    #: its message has left the inbox, or does not matter any more
    settled: bool = False
    carried_out_elsewhere: bool = False
    ended_at: float = 0.0


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        in_memory = Path("/dev/shm")  # power loss is another test's matter, and this one opens many files
        self.directory = Path(tempfile.mkdtemp(dir=in_memory if in_memory.is_dir() else None))
        self.time = BrokerTime()
        self.session = Session(self.directory / "1.db", time=self.time)
        self.runs: dict[str, Run] = {}
        self.old_claims: list[Claim] = []
        self.heard: Counter[int] = Counter()
        self.last: dict[str, Report] = {}
        self.ends: dict[str, Report] = {}

    def teardown(self) -> None:
        self.session.close()
        shutil.rmtree(self.directory)

    # What the rules choose from

    def of(self, data: st.DataObject, *states: str) -> Run:
        return data.draw(st.sampled_from([run for run in self.runs.values() if run.state in states]))

    def newest(self) -> list[Run]:
        return list(self.runs.values())[-3:]

    def any_in(self, *states: str) -> bool:
        return any(run.state in states for run in self.runs.values())

    def passed(self, at: float | None) -> bool:
        return at is not None and self.time.at > at

    # Messages

    @precondition(
        lambda self: sum(run.state not in {"ended", "refused", "forgotten"} for run in self.runs.values()) < 2
    )
    @rule(
        restart=st.sampled_from(Restart),
        max_retries=st.integers(0, 2),
        waits=st.sampled_from([None, None, None, 2.5]),
        lasts=st.sampled_from([None, None, 30.5]),
        arrives=st.sampled_from([True, True, True, False]),
    )
    def push(self, restart: Restart, max_retries: int, waits: float | None, lasts: float | None, arrives: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        envelope = Envelope(
            host=HOST,
            host_key=HOST_KEY,
            submitted_by="ann",
            submitted_at=self.time.at,
            not_before=waits and self.time.at + waits,
            not_after=lasts and self.time.at + lasts,
            retry=Retry(max_retries=max_retries),
        )
        run = Run(f"{HOST}:00000000-0000-7000-8000-{len(self.runs):012d}", restart, envelope, queued=1)
        self.runs[run.id] = run
        if arrives:
            self.take(run)

    @precondition(lambda self: any(run.queued for run in self.runs.values()))
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        self.take(data.draw(st.sampled_from([run for run in self.runs.values() if run.queued])))

    def take(self, run: Run) -> None:
        """A message is moved to the inbox, judged by the guard, and written down."""
        run.queued -= 1
        run.inbox += 1
        begins_at = max(run.envelope.submitted_at, run.envelope.not_before or 0.0)
        if self.time.at - begins_at > LONGEST_WAY_SECONDS:
            self.session.unbegun.refuse(run.id, reason="stale", detail="too old")
            if run.state in {"absent", "handed_back"}:
                run.state = "refused"
        elif self.passed(run.envelope.not_after):
            assert run.envelope.not_after
            self.session.unbegun.expire(
                run.id, expired_at=run.envelope.not_after, submitted_at=run.envelope.submitted_at
            )
            if run.state in {"absent", "handed_back"} or (run.state == "accepted" and run.attempt == 1):
                self.end(run)
        else:
            self.accept(run)

    def accept(self, run: Run) -> None:
        accepted = self.session.admissions.accept(
            run.id, task=TASK, envelope=run.envelope, item=item(run.id), begin=run.restart is Restart.RERUN
        )
        if run.state not in {"absent", "handed_back"}:
            assert accepted.admission is Admission.KNOWN
            return
        run.attempt += 1
        if run.cancelled:
            assert accepted.admission is Admission.CANCELLED
            self.end(run)
            return
        run.state = "accepted"
        run.due_at = max(self.time.at, run.envelope.not_before or 0.0)
        if run.due_at > self.time.at:
            assert accepted.admission is Admission.WAITS
        elif run.restart is Restart.RERUN:
            assert accepted.admission is Admission.BEGUN
            assert accepted.claim is not None
            self.claimed(run, accepted.claim)
            self.begin(run)
        else:
            assert accepted.admission is Admission.DUE
            run.held = run.in_hand = True

    @rule()
    def settle(self) -> None:
        """The hand-over removes what is not held."""
        self.session.store.sync()
        settled = [run for run in self.runs.values() if run.inbox > run.held]
        for run in settled:
            run.inbox = int(run.held)
            run.settled = run.settled or not run.held
        self.session.journal.handed_over(run.id for run in settled if not run.held)

    # Carrying out

    @precondition(lambda self: self.any_in("accepted", "claimed"))
    @rule(data=st.data(), only_claim=st.sampled_from([False, False, True]))
    def carry_out(self, data: st.DataObject, only_claim: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        """A pool thread claims a run, secures it, and begins; `only_claim` leaves a moment between."""
        run = self.of(data, "accepted", "claimed")
        if run.state == "accepted":
            self.claim(run)
        if run.state == "claimed" and not only_claim:
            self.secure(run)

    def claim(self, run: Run) -> None:
        if run.due_at > self.time.at:
            return
        claim = self.session.journal.claim(run.id, durable=run.restart is not Restart.RERUN, held=run.held)
        if run.attempt == 1 and self.passed(run.envelope.not_after):
            assert claim is None
            self.end(run)
        else:
            assert claim is not None
            self.claimed(run, claim)

    def claimed(self, run: Run, claim: Claim) -> None:
        assert claim.attempt == run.attempt
        run.claim, run.state, run.in_hand = claim, "claimed", True

    def secure(self, run: Run) -> None:
        if run.held:
            run.inbox -= 1
            run.held = False
            self.session.journal.handed_over([run.id])
        self.begin(run)

    def begin(self, run: Run) -> None:
        """The effect: what must not happen twice."""
        assert run.attempt not in run.effects
        assert run.may_begin
        assert not run.carried_out_elsewhere or run.restart is not Restart.UNKNOWN
        run.effects.append(run.attempt)
        run.settled, run.may_begin = True, False
        run.state = "begun"

    def supersede(self, run: Run) -> None:
        """Securing finds that a newer session has put the message back."""
        if run.state != "claimed" or not run.held:
            return
        run.queued, run.inbox, run.held = run.queued + run.inbox, 0, False
        self.session.journal.disown(run.id)
        self.disowned(run)

    def disowned(self, run: Run) -> None:
        run.attempt -= 1
        run.in_hand = run.held = False
        run.state = "handed_back" if run.attempt else "absent"

    # Ends

    def end(self, run: Run) -> None:
        if run.claim:
            self.old_claims.append(run.claim)
        run.claim, run.state, run.in_hand, run.ended_at = None, "ended", False, self.time.at
        run.held = False  # nobody will secure it any more; its message is settled with the rest

    def follow(self, run: Run, *, due_at: float) -> None:
        assert run.claim
        self.old_claims.append(run.claim)
        run.claim, run.state, run.in_hand, run.may_begin = None, "accepted", False, True
        run.attempt += 1
        run.due_at = due_at

    def handed_back(self, run: Run) -> None:
        assert run.claim
        self.old_claims.append(run.claim)
        run.claim, run.state, run.in_hand, run.may_begin, run.settled = None, "handed_back", False, True, False
        run.queued += 1  # the control plane sends it again

    @precondition(lambda self: self.any_in("begun"))
    @rule(data=st.data(), how=st.sampled_from(["succeeds", "fails", "fails", "is stopped", "is stopped"]))
    def end_by_itself(self, data: st.DataObject, how: str) -> None:
        run = self.of(data, "begun")
        assert run.claim
        assert self.session.journal.claim(run.id, durable=False) is None
        endings = self.session.endings
        endings.progress(run.claim, step="half", percent=50.0)
        if how == "succeeds":
            endings.succeed(run.claim, reply={"n": run.attempt}, duration_seconds=0.1)
            self.end(run)
        elif how == "fails":
            endings.fail(run.claim, kind="broken", message="it is", duration_seconds=0.1)
            self.failed(run)
        elif run.restart in {Restart.RERUN, Restart.RECONCILE}:
            endings.run_again(run.claim, Interruption.STOPPED)
            self.follow(run, due_at=self.time.at)
        elif run.restart is Restart.HAND_BACK:
            endings.hand_back(run.claim, Interruption.STOPPED)
            self.handed_back(run)

    def failed(self, run: Run) -> None:
        """See from the report whether another attempt follows; it must where one is left and there is time for it."""
        told = self.session.reports(run.id)[-1]
        run.failures += 1
        if told.kind is Kind.RUN_RETRYING:
            assert run.failures <= run.envelope.retry.max_retries
            assert self.time.at < told.data["not_before"] <= (run.envelope.not_after or float("inf"))
            self.follow(run, due_at=told.data["not_before"])
        else:
            assert told.kind is Kind.RUN_FAILED
            assert run.failures > run.envelope.retry.max_retries or run.envelope.not_after is not None
            self.end(run)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), how=st.sampled_from(["copied", "copied", "cancelled", "superseded", "spoken of late"]))
    def is_interfered_with(self, data: st.DataObject, how: str) -> None:
        run = data.draw(st.sampled_from(self.newest()))
        if how == "copied" and not run.carried_out_elsewhere:  # whoever clones a journal has two memories
            run.queued += 1
            self.take(run)
        elif how == "cancelled":
            self.cancel(run)
        elif how == "superseded":
            self.supersede(run)
        elif how == "spoken of late" and self.old_claims:
            self.a_late_word_changes_nothing(data)

    def cancel(self, run: Run) -> None:
        request = CancelRun(run=run.id, by="ann", reason="enough")
        assert self.session.unbegun.cancel(request) is (run.state in {"claimed", "begun"})
        if run.state in {"absent", "handed_back"}:
            run.cancelled = True
        elif run.state == "accepted":
            self.end(run)
        elif run.state == "begun":
            assert run.claim
            self.session.endings.cancel(run.claim, request)
            self.end(run)

    def a_late_word_changes_nothing(self, data: st.DataObject) -> None:
        """An attempt that has ended says something all the same."""
        claim = data.draw(st.sampled_from(self.old_claims[-3:]))
        endings = self.session.endings
        word = data.draw(
            st.sampled_from(
                [
                    lambda: endings.succeed(claim, reply={}, duration_seconds=0.1),
                    lambda: endings.fail(claim, kind="late", message="x", duration_seconds=0.1),
                    lambda: endings.fail_for_good(claim, kind="late", message="x", duration_seconds=0.1),
                    lambda: endings.cancel(claim, CancelRun(run=claim.run_id, by="ann")),
                    lambda: endings.lose_track(claim, message="x"),
                    lambda: endings.run_again(claim, Interruption.STOPPED),
                    lambda: endings.run_again(claim, Interruption.CRASHED),
                    lambda: endings.hand_back(claim, Interruption.CRASHED),
                ]
            )
        )
        before = self.session.reports()
        word()
        assert self.session.reports() == before

    # Time

    @rule(seconds=st.sampled_from([3.0, 3.0, 61.0, 61.0, _TWO_DAYS, _LONG_ENOUGH_TO_FORGET]))
    def time_passes(self, seconds: float) -> None:
        self.time.passes(seconds)
        self.session.pruning.run()
        remembered = {run_id for (run_id,) in self.session.rows("run_id")}
        for run in self.runs.values():
            if run.state == "ended" and run.id not in remembered:
                assert self.time.at - run.ended_at > 2 * LONGEST_WAY_SECONDS
                run.state = "forgotten"

    # Crashes

    @rule(data=st.data(), elsewhere=st.sampled_from([False, False, False, True]))
    def crash(self, data: st.DataObject, elsewhere: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        """The process ends between two of its steps; with `elsewhere`, a session on another machine came in between."""
        in_inbox = {run.id for run in self.runs.values() if run.inbox}
        held = {run.id for run in self.runs.values() if run.held}
        epoch = self.session.epoch + 1
        path = self.directory / f"{epoch}.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.session.path}{suffix}", f"{path}{suffix}")
        self.session.close()
        self.session = Session(path, epoch=epoch, time=self.time)
        for run in self.runs.values():
            if elsewhere and (run.inbox or run.queued) and not run.settled:
                run.carried_out_elsewhere = True
            run.queued = 0 if elsewhere else run.queued + run.inbox
            run.held, run.inbox = False, 0
            if run.state == "accepted":
                run.in_hand = False
        if elsewhere:
            for run_id, _item in self.session.journal.waiting(unsettled=True):
                self.session.journal.disown(run_id)
                self.disowned(self.runs[run_id])
        self.recover(data, in_inbox=set() if elsewhere else in_inbox, held=held)

    def recover(self, data: st.DataObject, *, in_inbox: set[str], held: set[str]) -> None:
        interrupted = self.session.journal.interrupted()
        assert {claim.run_id for claim in interrupted} == {
            run.id for run in self.runs.values() if run.state in {"claimed", "begun"}
        }
        for claim in interrupted:
            run = self.runs[claim.run_id]
            if run.id in in_inbox and self.session.journal.unclaim(run.id):
                assert run.state == "claimed"
                run.claim, run.state, run.in_hand = None, "accepted", False
            else:
                assert run.id not in held & in_inbox
                run.claim = claim
                self.take_up(data, run, claim)

    def take_up(self, data: st.DataObject, run: Run, claim: Claim) -> None:
        endings = self.session.endings
        endings.recover(claim, how=run.restart.value)
        match run.restart:
            case Restart.RERUN | Restart.RECONCILE:
                if run.restart is Restart.RECONCILE and data.draw(st.booleans(), label="had its effect"):
                    endings.succeed(claim, reply={}, duration_seconds=0.0)
                    self.end(run)
                    return
                endings.run_again(claim, Interruption.CRASHED)
                run.crashes += 1
                if run.crashes == MOST_CRASHES:
                    self.end(run)
                else:
                    self.follow(run, due_at=self.time.at)
            case Restart.HAND_BACK:
                endings.hand_back(claim, Interruption.CRASHED)
                run.crashes += 1
                if run.crashes == MOST_CRASHES:
                    self.end(run)
                else:
                    self.handed_back(run)
            case _:
                endings.lose_track(claim, message="nobody knows")
                self.end(run)
        if run.crashes == MOST_CRASHES:
            assert self.session.reports(run.id)[-1].data["kind"] == "poison"

    # What holds at every moment

    @invariant()
    def what_was_accepted_is_in_the_journal_until_it_ends(self) -> None:
        unfinished = self.session.journal.unfinished(1000)
        assert unfinished is not None
        assert set(unfinished) == {
            run.id for run in self.runs.values() if run.state in {"accepted", "claimed", "begun"}
        }

    @invariant()
    def what_is_due_is_given_to_the_pool(self) -> None:
        in_hand = [run.id for run in self.runs.values() if run.in_hand]
        due = {run_id for run_id, _item in self.session.journal.due(1000, besides=in_hand)}
        assert due == {
            run.id
            for run in self.runs.values()
            if run.state == "accepted" and not run.in_hand and run.due_at <= self.time.at
        }

    @invariant()
    def reports_are_numbered_without_gaps_and_tell_lives_that_go_forward_and_end_once(self) -> None:
        with self.session.store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT report, result FROM outbox ORDER BY epoch, seq LIMIT -1 OFFSET ?", (self.heard.total(),)
            ).fetchall()
        for row in rows:
            report = Report.model_validate_json(row[0])
            self.heard[report.epoch] += 1
            assert report.seq == self.heard[report.epoch]
            if report.run is not None:
                self.hear(report, has_result=row[1] is not None)
        for run in self.runs.values():
            assert (run.id in self.ends) is (run.state in {"ended", "refused", "forgotten"})

    def hear(self, report: Report, *, has_result: bool) -> None:
        run_id = str(report.run)
        if end := self.ends.get(run_id):
            told_again = (report.kind, report.attempt, report.data) == (end.kind, end.attempt, end.data)
            refused_for_its_age = report.kind is Kind.RUN_REJECTED
            assert told_again or refused_for_its_age
            return
        before = self.last.get(run_id)
        assert report.kind in FOLLOWED_BY[before.kind if before else None], f"{before} → {report}"
        if before is not None and report.attempt is not None and before.attempt is not None:
            assert report.attempt in (
                {before.attempt, before.attempt + 1} if report.kind in GROWING else {before.attempt}
            )
        assert has_result is (report.kind in FINAL)
        self.last[run_id] = report
        if report.kind in FINAL:
            self.ends[run_id] = report


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
