"""Runs that wait for approval when something else happens: their host goes, forgets them, or somebody ends them."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import approvals, audit, clock, db, errors, inventory, names, runs, sessions
from fleet.contracts.reports import Kind, Report
from fleet.models import Approval, Membership, Run, ShellSession
from tests import factories
from tests.services import governed
from tests.services.broker import Broker
from workers.control.ingest import Ingest
from workers.control.rescue import Rescue
from workers.control.silence import Silence

LONG_AGO = time.time() - 3600


class Watch:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


class Plane:
    """A control worker with one host, whose steps a test takes."""

    def __init__(self, engine: Engine, client: "redis.Redis") -> None:
        self.engine, self.client, self.watch = engine, client, Watch()
        lease, voice = factories.HeldLease(client), factories.voice(engine)
        self.ingest = Ingest(engine=engine, client=client, lease=lease, voice=voice)
        silence = Silence(elapsed=self.watch)
        self.rescue = Rescue(engine=engine, client=client, lease=lease, voice=voice, silence=silence, rest=0)
        self._seq = 0
        with db.session(engine) as session:
            factories.enroll(session, "edge-1")
            factories.introduce(session, "alice", "bob")

    def take(self, *reports: Report) -> None:
        factories.push(self.client, *reports)
        while self.ingest.step():
            self.ingest.errands.run()

    def tell(self, run: str, *steps: tuple[Kind, dict[str, Any]]) -> None:
        self.take(*governed.told(run, *steps, first_seq=self._seq + 1))
        self._seq += len(steps)

    def waits(self, *, approve_before: float | None = None, **more: Any) -> str:
        """Return a run of long ago that waits for approval."""
        run = names.new_run_id("edge-1")
        self.take(governed.queued(run, **{"submitted_at": LONG_AGO, "limit_seconds": 10, **more}))
        self.tell(
            run, governed.awaiting(approve_before=time.time() + 600 if approve_before is None else approve_before)
        )
        return run

    def register(self, *, journal: str, unfinished: list[str]) -> None:
        data = {"facts": factories.facts().model_dump(mode="json"), "journal": journal, "unfinished": unfinished}
        self._seq += 1
        self.take(factories.report("edge-1", Kind.HOST_REGISTERED, seq=self._seq, data=data))

    def fall_silent(self) -> None:
        for _ in range(6):
            self.rescue.run()
            self.watch.now += 25
        self.rescue.run()

    def approval(self, run: str) -> Approval:
        with db.session(self.engine, write=False) as session:
            assert audit.verify(session) is None
            return approvals.get(session, run)

    def session(self, run: str) -> ShellSession:
        with db.session(self.engine, write=False) as session:
            return sessions.get(session, run)

    def run(self, run: str) -> Run:
        with db.session(self.engine, write=False) as session:
            return runs.get(session, run)

    def stands(self, run: str) -> tuple[str, str, str | None]:
        return self.run(run).state, self.approval(run).state, self.session(run).outcome


@pytest.fixture
def plane(engine: Engine, client: "redis.Redis") -> Plane:
    return Plane(engine, client)


def test_a_run_that_waits_says_so_and_until_when(plane: Plane) -> None:
    run = plane.waits()
    progress = plane.run(run).progress or {}
    assert progress["step"] == "waits for approval"
    assert progress["approve_before"] > time.time()
    plane.tell(run, governed.approved())
    progress = plane.run(run).progress or {}
    assert (progress["step"], progress["run_before"]) == ("approved by bob", governed.RUN_BEFORE)


def test_a_run_that_waits_on_a_host_that_is_there_is_its_hosts_affair(plane: Plane) -> None:
    run = plane.waits(approve_before=1_750_000_600)
    plane.client.set(names.presence("edge-1"), "any heartbeat")
    plane.fall_silent()
    assert plane.stands(run) == ("awaiting_approval", "pending", None)


def test_of_a_host_that_stays_away_nothing_is_said_while_the_run_may_still_begin(plane: Plane) -> None:
    """It may have been approved since its host was heard last, and begin up to 30 days later."""
    run = plane.waits(approve_before=time.time() - 600)
    plane.fall_silent()
    assert plane.stands(run) == ("awaiting_approval", "pending", None)


def test_a_run_whose_time_is_over_for_certain_is_unknown_and_waits_no_more(plane: Plane) -> None:
    by_approval = plane.waits(submitted_at=time.time() - 32 * 86_400, approve_before=time.time() - 31 * 86_400)
    by_itself = plane.waits(not_after=time.time() - 1800)
    plane.fall_silent()
    for run in (by_approval, by_itself):
        assert plane.stands(run) == ("unknown", "expired", "unknown")
        assert "its host fell silent" in plane.approval(run).reason


def test_an_approved_run_of_a_host_that_stays_away_is_unknown_after_its_last_moment(plane: Plane) -> None:
    run = plane.waits()
    plane.tell(run, governed.approved(run_before=time.time() - 1800))
    plane.fall_silent()
    assert plane.stands(run) == ("unknown", "approved", "unknown")


@pytest.mark.parametrize(
    ("steps", "stands"),
    [
        (
            [governed.approved(), governed.STARTED, governed.ended(), governed.SUCCEEDED],
            ("succeeded", "approved", "exited"),
        ),
        ([governed.denied()], ("rejected", "denied", "rejected")),
        ([governed.EXPIRED], ("expired", "expired", "expired")),
        ([governed.CANCELLED], ("cancelled", "cancelled", "cancelled")),
    ],
    ids=["carried out", "denied", "expired", "cancelled"],
)
def test_what_its_host_says_after_all_counts(plane: Plane, steps: list[Any], stands: tuple[str, str, str]) -> None:
    run = plane.waits(not_after=time.time() - 1800)
    plane.fall_silent()
    assert plane.stands(run) == ("unknown", "expired", "unknown")
    plane.tell(run, *steps)
    assert plane.stands(run) == stands


def test_a_run_that_waits_on_a_host_that_is_put_out_is_unknown(plane: Plane) -> None:
    run = plane.waits()
    with db.session(plane.engine) as session:
        inventory.host(session, "edge-1").membership = Membership.REVOKED.value
    plane.rescue.run()
    assert plane.stands(run) == ("unknown", "expired", "unknown")
    assert plane.approval(run).reason == "its host was put out of the fleet"
    found: Any = plane.client.get(names.result(run))
    assert json.loads(found)["result"]["state"] == "unknown", "whoever waits for it hears of it"


def test_the_end_of_a_run_that_waits_is_its_hosts_to_bring_about(plane: Plane) -> None:
    run = plane.waits()
    asked = Report(sender="p:alice", kind=Kind.RUN_CANCEL_REQUESTED, run=run, at=LONG_AGO, data={"reason": "a mistake"})
    plane.client.set(names.presence("edge-1"), "any heartbeat")
    plane.take(asked)
    plane.rescue.run()
    assert plane.stands(run) == ("awaiting_approval", "pending", None)
    told = factories.heard(plane.client, "edge-1", "run.cancel")
    assert [word["run"] for word in told][:1] == [run], "it is told, again where it has not ended the run"
    plane.tell(run, governed.CANCELLED)
    assert plane.stands(run) == ("cancelled", "cancelled", "cancelled")


def test_what_a_host_put_back_into_its_queue_before_it_left_is_cancelled_there(plane: Plane) -> None:
    run = plane.waits()
    item = plane.run(run).message or ""
    plane.client.lpush(names.queue("edge-1"), item)
    with db.session(plane.engine) as session:
        inventory.deregister(session, "edge-1", at=clock.now())
    plane.take(Report(sender="p:alice", kind=Kind.RUN_CANCEL_REQUESTED, run=run, at=time.time(), data={}))
    assert plane.stands(run) == ("cancelled", "cancelled", "cancelled")
    assert plane.client.llen(names.queue("edge-1")) == 0


def test_a_run_that_its_host_has_in_its_journal_goes_on_waiting(plane: Plane) -> None:
    run = plane.waits()
    plane.register(journal="one", unfinished=[run])
    assert plane.stands(run) == ("awaiting_approval", "pending", None)


def test_a_run_that_its_host_has_forgotten_is_sent_again_and_no_former_answer_counts(plane: Plane) -> None:
    plane.register(journal="one", unfinished=[])
    run = plane.waits()
    plane.tell(run, governed.approved())
    plane.register(journal="one", unfinished=[])
    assert plane.run(run).state == "queued"
    assert plane.client.lrange(names.queue("edge-1"), 0, -1) == [plane.run(run).message]
    assert plane.session(run).approved_by is None
    with db.session(plane.engine, write=False) as session, pytest.raises(errors.NotFound):
        approvals.get(session, run)
    plane.tell(run, governed.awaiting())
    assert plane.stands(run) == ("awaiting_approval", "pending", None)
    assert plane.approval(run).decided_by is None


def test_of_a_run_that_another_journal_may_have_begun_nothing_is_repeated(plane: Plane) -> None:
    plane.register(journal="one", unfinished=[])
    run = plane.waits()
    plane.register(journal="another", unfinished=[])
    assert plane.run(run).state == "queued"
    assert "doubted_at" in (plane.run(run).progress or {})
    assert plane.client.llen(names.queue("edge-1")) == 0
