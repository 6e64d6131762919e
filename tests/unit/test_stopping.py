"""Stopping: what runs may finish, for a while; then it is ended, and the process ends in any case."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.services.sessions import Session
from tests.services.waiting import until
from workers.host.availability import Gate
from workers.host.deadlines import Deadlines
from workers.host.running import EndRequest, Running, Why
from workers.host.stopping import Stopping

LONG = timedelta(hours=1)


class Worker:
    """What a stop is about: runs in hand, and the gate through which they come."""

    def __init__(self, session: Session) -> None:
        self.running = Running()
        self.deadlines = Deadlines()
        self.gate = Gate(session.store, session.outbox, self.running, self.deadlines, clock=session.time)
        self.woken: list[bool] = []
        self.ended: list[EndRequest] = []
        self.made: list[Stopping] = []

    def stopping(self, grace: timedelta) -> Stopping:
        def too_late() -> None:
            raise AssertionError("the process was ended by force")

        made = Stopping(
            self.running,
            self.gate,
            grace=grace,
            wake=lambda: self.woken.append(self.gate.is_open()),
            take_leave=too_late,
        )
        self.made.append(made)
        return made

    def run(self, run_id: str, *, obeys: bool = True) -> None:
        """Have a run in hand, which leaves when it is told to."""

        def end(request: EndRequest) -> None:
            self.ended.append(request)
            if obeys:
                self.running.leave(run_id)

        self.running.enter(run_id)
        self.running.begin(run_id, end)


@pytest.fixture
def worker(session: Session) -> Iterator[Worker]:
    made = Worker(session)
    yield made
    for run_id in made.running.ids():
        made.running.leave(run_id)
    for stopping in made.made:
        stopping.over.set()


def test_nothing_new_is_taken_from_the_first_signal_on_and_the_event_loop_knows(worker: Worker) -> None:
    assert worker.gate.is_open()
    worker.stopping(LONG).begin()
    assert not worker.gate.is_open()
    until(lambda: worker.woken, "the event loop is woken")
    assert worker.woken == [False]


def test_what_runs_may_finish_within_the_grace_period(worker: Worker) -> None:
    worker.run("h1:x")
    stopping = worker.stopping(LONG)
    stopping.begin()
    until(lambda: worker.woken, "it stops")
    worker.running.leave("h1:x")
    stopping.over.set()
    assert worker.ended == []


def test_whoever_would_take_leave_waits_for_what_runs(worker: Worker) -> None:
    worker.run("h1:x")
    stopping = worker.stopping(LONG)
    stopping.finish()  # no stop has begun: the worker ends for another reason, and nothing is waited for
    stopping.begin()
    left = threading.Thread(target=stopping.finish)
    left.start()
    until(lambda: worker.woken, "it stops")
    assert left.is_alive()
    worker.running.leave("h1:x")
    left.join(30)
    assert not left.is_alive()
    stopping.over.set()


def test_a_second_signal_ends_what_still_runs(worker: Worker) -> None:
    worker.run("h1:x")
    worker.run("h1:y")
    stopping = worker.stopping(LONG)
    stopping.begin()
    assert worker.ended == []
    stopping.begin()
    assert until(lambda: len(worker.ended) == 2, "both are ended")
    assert {request.why for request in worker.ended} == {Why.STOPPED}


def test_the_end_of_the_grace_period_ends_what_still_runs(worker: Worker) -> None:
    worker.run("h1:x")
    worker.stopping(timedelta(milliseconds=150)).begin()
    assert until(lambda: worker.ended, "it is ended")


def test_without_a_grace_period_what_runs_is_ended_at_once(worker: Worker) -> None:
    worker.run("h1:x")
    worker.stopping(LONG).begin(grace=timedelta())
    assert until(lambda: worker.ended, "it is ended")


def test_a_third_signal_asks_nothing_more_of_a_run_that_was_told(worker: Worker) -> None:
    worker.run("h1:x", obeys=False)
    stopping = worker.stopping(LONG)
    for _ in range(3):
        stopping.begin()
    until(lambda: worker.ended, "it is ended")
    stopping.begin()
    worker.running.leave("h1:x")
    stopping.over.set()
    assert len(worker.ended) == 1


_HANGS = """
    import sys
    from datetime import timedelta
    from pathlib import Path
    from tests.services.sessions import Session
    from workers.host import stopping
    from workers.host.availability import Gate
    from workers.host.deadlines import Deadlines
    from workers.host.running import Running

    stopping._END_WITHIN = stopping._EXIT_WITHIN = timedelta(milliseconds=100)
    session, running = Session(Path(sys.argv[1])), Running()
    gate = Gate(session.store, session.outbox, running, Deadlines(), clock=session.time)
    running.enter("h1:x")
    running.begin("h1:x", lambda request: None)  # it is in a call that does not return

    def take_leave():
        print("took leave with", running.ids(), flush=True)

    stopping.Stopping(running, gate, grace=timedelta(), wake=lambda: None, take_leave=take_leave).begin()
    running.wait_empty(3600)
"""


def test_a_call_that_hangs_does_not_keep_the_process_from_its_end(session: Session) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_HANGS), str(session.path.with_name("other.db"))],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "took leave with ['h1:x']\n"
