"""Running: a run in hand is ended once for each request, whenever the request comes."""

import threading

from fleet.contracts.control import CancelRun
from tests.services.sessions import Session
from workers.host.running import EndRequest, Running, Why

CANCEL = EndRequest(Why.CANCELLED, CancelRun(run="h1:x", by="ann"))
STOP = EndRequest(Why.STOPPED)


def test_a_run_that_is_not_in_hand_cannot_be_ended() -> None:
    running = Running()
    assert running.end("h1:x", CANCEL) is False
    running.enter("h1:x")
    running.leave("h1:x")
    assert running.end("h1:x", CANCEL) is False


def test_a_run_is_ended_at_once_after_its_claim() -> None:
    running, ended = Running(), []
    running.enter("h1:x")
    running.begin("h1:x", ended.append)
    assert running.end("h1:x", CANCEL) is True
    assert ended == [CANCEL]


def test_a_request_that_comes_before_the_claim_takes_effect_at_it() -> None:
    running, ended = Running(), []
    running.enter("h1:x")
    assert running.end("h1:x", CANCEL) is True
    assert running.end("h1:x", STOP) is True
    assert ended == []
    running.begin("h1:x", ended.append)
    assert ended == [CANCEL]
    assert running.requested("h1:x") == CANCEL


def test_a_request_that_comes_at_the_very_moment_of_the_claim_takes_effect_once() -> None:
    for _ in range(200):
        running, ended = Running(), []
        running.enter("h1:x")
        barrier = threading.Barrier(2)

        def request(running: Running = running, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            running.end("h1:x", CANCEL)

        thread = threading.Thread(target=request)
        thread.start()
        barrier.wait()
        running.begin("h1:x", ended.append)
        thread.join()
        assert ended == [CANCEL]


def test_a_run_that_comes_again_is_not_ended_by_what_was_asked_of_the_former_attempt() -> None:
    running, ended = Running(), []
    running.enter("h1:x")
    running.end("h1:x", STOP)
    running.leave("h1:x")
    running.enter("h1:x")
    running.begin("h1:x", ended.append)
    assert ended == []
    assert running.requested("h1:x") is None


def test_all_runs_in_hand_are_ended_together() -> None:
    running, ended = Running(), []
    for run_id in ("h1:x", "h1:y"):
        running.enter(run_id)
        running.begin(run_id, ended.append)
    running.end_all(STOP)
    assert ended == [STOP, STOP]


def test_runs_beside_the_pool_are_ended_by_themselves_and_so_are_those_that_come_later() -> None:
    running, ended = Running(), []
    for run_id in ("h1:x", "h1:y", "h1:z"):
        running.enter(run_id)
    running.begin("h1:x", lambda request: ended.append(("x", request)), attached=True)
    running.begin("h1:y", lambda request: ended.append(("y", request)))
    running.end_attached(STOP)
    running.begin("h1:z", lambda request: ended.append(("z", request)), attached=True)
    assert ended == [("x", STOP), ("z", STOP)]


def test_whoever_waits_for_an_empty_hand_wakes_when_the_last_run_leaves() -> None:
    running = Running()
    assert running.wait_empty(0)
    running.enter("h1:x")
    assert running.wait_empty(0.01) is False
    thread = threading.Thread(target=running.leave, args=("h1:x",))
    thread.start()
    assert running.wait_empty(30)
    thread.join()
    assert len(running) == 0


def test_the_event_loop_is_told_of_each_run_that_leaves() -> None:
    running, told = Running(), []
    running.enter("h1:x")
    running.on_leave = lambda: told.append(running.ids())
    running.leave("h1:x")
    running.leave("h1:x")
    assert told == [[], []]


def test_a_claim_that_came_with_the_acceptance_is_given_out_once(session: Session) -> None:
    running, claim = Running(), session.begun()
    running.enter(claim.run_id, claim)
    running.enter(claim.run_id)
    assert running.claim(claim.run_id) is claim
    assert running.claim(claim.run_id) is None
