"""The beat: entries run in place, in their rhythm, and one that fails does not stop the others."""

import queue
from collections.abc import Callable
from datetime import timedelta

import pytest
from celery import Celery

from beat import host
from beat.scheduler import BeatThread, Entry


@pytest.fixture
def app() -> Celery:
    return Celery("test", broker="memory://", set_as_current=False)


def register(app: Celery, name: str, function: Callable[[], object]) -> None:
    def task() -> None:
        function()

    app.task(name=name, shared=False)(task)


def entry(name: str, *, interval: float = 60.0, retry: float = 60.0) -> Entry:
    return Entry(
        name=name,
        task=name,
        interval=timedelta(seconds=interval),
        jitter=0.0,
        retry=timedelta(seconds=retry),
        why="test",
    )


def test_every_entry_runs_at_once_and_again_after_its_interval(app: Celery) -> None:
    ticks: queue.Queue[str] = queue.Queue()
    register(app, "a", lambda: ticks.put("a"))
    register(app, "b", lambda: ticks.put("b"))
    beat = BeatThread(app, (entry("a", interval=0.01), entry("b")), name="test")
    beat.start()
    seen = [ticks.get(timeout=30) for _ in range(5)]
    beat.stop()
    assert seen.count("b") == 1
    assert seen.count("a") == 4


def test_an_entry_that_fails_is_retried_soon_and_the_others_go_on(app: Celery) -> None:
    ticks: queue.Queue[str] = queue.Queue()

    def fail() -> None:
        ticks.put("bad")
        raise RuntimeError("broken")

    register(app, "bad", fail)
    register(app, "good", lambda: ticks.put("good"))
    beat = BeatThread(app, (entry("bad", retry=0.01), entry("good", interval=0.01)), name="test")
    beat.start()
    seen = {ticks.get(timeout=30) for _ in range(10)}
    beat.stop()
    assert seen == {"bad", "good"}


def test_an_entry_can_be_hurried(app: Celery) -> None:
    ticks: queue.Queue[int] = queue.Queue()
    register(app, "a", lambda: ticks.put(1))
    beat = BeatThread(app, (entry("a", interval=3600),), name="test")
    beat.start()
    ticks.get(timeout=30)
    beat.hurry("a")
    ticks.get(timeout=30)
    beat.stop()


def test_stopping_twice_or_before_the_start_does_no_harm(app: Celery) -> None:
    register(app, "a", lambda: None)
    never_started = BeatThread(app, (entry("a"),), name="test")
    never_started.stop()
    beat = BeatThread(app, (entry("a"),), name="test")
    beat.start()
    beat.stop()
    beat.stop()
    assert beat.stopped.wait(30)


def test_an_entry_without_a_registered_task_is_a_mistake_of_the_program(app: Celery) -> None:
    with pytest.raises(LookupError, match="nowhere"):
        BeatThread(app, (entry("nowhere"),), name="test")


def test_the_jitter_stays_within_its_bounds() -> None:
    heartbeat = next(e for e in host.ENTRIES if e.name == "heartbeat")
    waits = [heartbeat.wait_seconds() for _ in range(1000)]
    assert min(waits) >= 8.0
    assert max(waits) <= 12.0
    assert max(waits) - min(waits) > 2.0
