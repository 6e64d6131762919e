"""Attached runs: beside the pool, a bounded number of them, ended at once when somebody says so."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import errors, names
from fleet.contracts.container_output import LOGS, LogsEnd
from fleet.contracts.control import CancelRun
from fleet.contracts.envelope import Limits
from fleet.contracts.images import PULL
from fleet.contracts.reports import Kind
from tests.services.pipelines import Part
from tests.services.sessions import Session
from tests.services.waiting import LIMITS, until
from workers.host.attached import MOST_ATTACHED
from workers.host.running import EndRequest, Why


class Followed(Part):
    """A pipeline whose runs go on until they are told to end, or let go."""

    def __init__(self, session: Session, client: Any, directory: Path, **more: Any) -> None:
        self.go = threading.Event()
        self.under_way: list[Any] = []
        self.interrupted: list[str] = []
        self.act: Callable[[], None] = lambda: None
        super().__init__(session, client, directory, **{"contract": LOGS, "perform": self.follow, **more})

    def follow(self, _request: Any, run: Any) -> LogsEnd:
        ends = threading.Event()

        def close() -> None:
            self.interrupted.append(run.run_id)
            ends.set()

        with run.interruptible(close):
            self.under_way.append(run)
            while not (ends.is_set() or self.go.is_set()):
                ends.wait(0.02)
        if run.ended():
            raise errors.TaskCancelled("it was ended")
        self.act()
        run.say("stdout", "last words\n")
        return LogsEnd(lines=1, ended="read")

    def carry_out(self, **wishes: Any) -> str:
        run_id = self.deliver(**wishes)
        self.pipeline.carry_out(self.contract, run_id)
        return run_id

    def end(self, run_id: str, kind: Kind) -> Any:
        """Return the data of the run's last report, once it is of that kind."""
        until(lambda: self.session.kinds(run_id)[-1] is kind, f"{run_id} has {kind}")
        return self.session.reports(run_id)[-1].data


@pytest.fixture
def part(session: Session, client: Any, tmp_path: Path) -> Iterator[Followed]:
    with Followed(session, client, tmp_path).at_work() as made:
        yield made
        made.go.set()
        made.running.wait_empty(30)


def test_a_run_goes_on_when_the_pools_thread_is_free_again(part: Followed) -> None:
    run_id = part.carry_out()
    until(lambda: part.under_way, "it is under way")
    assert part.running.ids() == [run_id]
    assert part.session.kinds(run_id)[-1] is Kind.RUN_STARTED
    part.go.set()
    assert part.end(run_id, Kind.RUN_SUCCEEDED)["reply"] == {"lines": 1, "ended": "read"}
    assert part.running.wait_empty(30)


def test_when_the_end_is_on_record_the_last_words_are_in_the_broker(part: Followed, client: Any) -> None:
    part.go.set()
    run_id = part.carry_out()
    part.end(run_id, Kind.RUN_SUCCEEDED)
    [(entry_id, fields)] = client.xrange(names.output(run_id))
    assert entry_id == "1-1"
    assert "last words" in fields["entry"]


def test_so_many_run_at_once_and_one_more_is_told_so(part: Followed) -> None:
    runs = [part.carry_out() for _ in range(MOST_ATTACHED)]
    with pytest.raises(errors.TaskFailed, match="32 tasks follow something here already"):
        part.carry_out()
    assert sorted(part.running.ids()) == sorted(runs)
    part.go.set()
    assert part.running.wait_empty(30)
    assert part.end(part.carry_out(), Kind.RUN_SUCCEEDED)


def test_a_cancelled_run_ends_at_once_and_its_call_with_it(part: Followed) -> None:
    run_id = part.carry_out()
    until(lambda: part.under_way, "it is under way")
    part.running.end(run_id, EndRequest(Why.CANCELLED, CancelRun(run=run_id, by="ann", reason="enough")))
    assert part.session.reports(run_id)[-1].data == {"by": "ann", "reason": "enough", "begun": True}
    assert part.interrupted == [run_id]
    assert part.running.wait_empty(30)
    assert part.session.kinds(run_id)[-1] is Kind.RUN_CANCELLED


def test_a_run_that_was_cancelled_before_it_began_is_not_performed(part: Followed) -> None:
    run_id = part.deliver()
    part.running.end(run_id, EndRequest(Why.CANCELLED, CancelRun(run=run_id, by="ann")))
    part.pipeline.carry_out(LOGS, run_id)
    part.end(run_id, Kind.RUN_CANCELLED)
    assert part.running.wait_empty(30)
    assert part.under_way == []


def test_a_run_that_is_too_late_ends_and_its_call_with_it(part: Followed) -> None:
    run_id = ""
    for limit in LIMITS:
        run_id = part.carry_out(limits=Limits(hard_seconds=limit))
        assert part.end(run_id, Kind.RUN_FAILED)["kind"] == "time_limit"
        assert part.running.wait_empty(30)
        if part.under_way:
            break
    assert part.interrupted == [run_id]


def test_a_worker_that_stops_ends_what_is_followed_as_interrupted(part: Followed) -> None:
    run_id = part.carry_out()
    until(lambda: part.under_way, "it is under way")
    part.running.end_attached(EndRequest(Why.STOPPED))
    assert part.end(run_id, Kind.RUN_FAILED)["kind"] == "interrupted"
    assert part.running.wait_empty(30)
    late = part.carry_out()
    assert part.end(late, Kind.RUN_FAILED)["kind"] == "interrupted"
    assert len(part.under_way) == 1


def test_a_worker_that_stops_leaves_a_pull_to_the_next_session(session: Session, client: Any, tmp_path: Path) -> None:
    with Followed(session, client, tmp_path, contract=PULL).at_work() as part:
        assert isinstance(part, Followed)
        run_id = part.carry_out(arguments={"image": "busybox"})
        until(lambda: part.under_way, "it is under way")
        part.running.end_attached(EndRequest(Why.STOPPED))
        assert part.end(run_id, Kind.RUN_RECOVERING) == {"how": "rerun"}
        assert part.running.wait_empty(30)
        assert session.rows("attempt, state", "run_id = ?", (run_id,)) == [(1, "finished"), (2, "accepted")]


def test_what_a_crash_has_left_of_a_followed_run_ends_as_interrupted(part: Followed) -> None:
    claim = part.session.begun(task=LOGS.name, arguments={"container": "web"})
    part.settling.by_contract(claim)
    assert part.end(claim.run_id, Kind.RUN_FAILED)["kind"] == "interrupted"


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), errors.EngineRefused("no", kind="conflict")])
def test_an_error_of_any_kind_ends_a_run_beside_the_pool(part: Followed, error: Exception) -> None:
    def fail() -> None:
        raise error

    part.act = fail
    part.go.set()
    run_id = part.carry_out()
    kind = "conflict" if isinstance(error, errors.EngineRefused) else "internal_error"
    assert part.end(run_id, Kind.RUN_FAILED)["kind"] == kind
    assert part.running.wait_empty(30)


def test_the_worker_is_told_when_the_end_of_a_run_beside_the_pool_cannot_be_written_down(part: Followed) -> None:
    def fill_the_disk() -> None:
        with part.session.store.transaction() as transaction:
            transaction.execute("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(FAIL, 'full'); END")

    part.act = fill_the_disk
    part.go.set()
    part.carry_out()
    until(lambda: part.unusable, "the worker is told")
    assert part.running.wait_empty(30)
