"""Deadlines: each callback at its time, in their order, unless it was called off."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from workers.host.deadlines import Deadlines


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    made = Deadlines()
    yield made
    made.stop()
    made.stop()
    assert made.stopped.is_set()


def test_they_come_in_the_order_of_their_times_whatever_the_order_in_which_they_were_set(deadlines: Deadlines) -> None:
    called: list[str] = []
    done = threading.Event()
    # passed already, and far enough apart for a machine that stands still in between
    deadlines.set(-100, done.set)
    deadlines.set(-300, lambda: called.append("second"))
    deadlines.set(-400, lambda: called.append("first"))
    deadlines.set(-200, lambda: called.append("third"))
    deadlines.start()
    assert done.wait(30)
    assert called == ["first", "second", "third"]


def test_one_that_comes_sooner_than_all_others_is_not_kept_waiting(deadlines: Deadlines) -> None:
    deadlines.start()
    deadlines.set(3600, lambda: None)
    soon = threading.Event()
    deadlines.set(0.01, soon.set)
    assert soon.wait(30)


def test_one_that_was_called_off_does_not_come_and_the_next_does(deadlines: Deadlines) -> None:
    called: list[str] = []
    done = threading.Event()
    first = deadlines.set(0.01, lambda: called.append("first"))
    second = deadlines.set(0.02, lambda: called.append("second"))
    deadlines.set(0.03, done.set)
    deadlines.clear(second)
    deadlines.clear(first)
    deadlines.clear(first)
    deadlines.start()
    assert done.wait(30)
    assert called == []


def test_calling_off_one_that_has_passed_does_no_harm(deadlines: Deadlines) -> None:
    passed, later = threading.Event(), threading.Event()
    number = deadlines.set(0, passed.set)
    deadlines.start()
    assert passed.wait(30)
    deadlines.clear(number)
    deadlines.set(0, later.set)
    assert later.wait(30)


def test_of_many_that_are_called_off_nothing_is_kept_and_the_others_come(deadlines: Deadlines) -> None:
    kept, done = [], threading.Event()
    deadlines.set(0.001, lambda: None)  # the oldest stays, so that the others are called off behind it
    for number in [deadlines.set(3600 + index, lambda: None) for index in range(5000)]:
        deadlines.clear(number)
    assert len(deadlines._queue) < 1500
    assert len(deadlines._off) <= 1000
    deadlines.set(0.002, lambda: kept.append("kept"))
    deadlines.set(0.003, done.set)
    deadlines.start()
    assert done.wait(30)
    assert kept == ["kept"]


def test_one_that_fails_does_not_cost_the_others_theirs(deadlines: Deadlines) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    done = threading.Event()
    deadlines.set(0, fail)
    deadlines.set(0.001, done.set)
    deadlines.start()
    assert done.wait(30)


def test_a_callback_may_set_and_clear_others(deadlines: Deadlines) -> None:
    done = threading.Event()

    def again() -> Any:
        deadlines.clear(deadlines.set(3600, lambda: None))
        deadlines.set(0, done.set)

    deadlines.set(0, again)
    deadlines.start()
    assert done.wait(30)


def test_what_is_due_after_the_stop_does_not_come() -> None:
    deadlines, called = Deadlines(), []
    deadlines.set(3600, lambda: called.append("late"))
    deadlines.start()
    deadlines.stop()
    assert deadlines.stopped.is_set()
    assert called == []


def test_one_that_was_never_started_stops_at_once() -> None:
    deadlines = Deadlines()
    deadlines.stop()
    assert deadlines.stopped.is_set()
