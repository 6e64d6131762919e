"""Start times: asked for once a start, and only remembered while somebody would hear of the next."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from workers.host.containers.starts import StartTimes

FIRST = datetime(2026, 11, 21, 7, tzinfo=UTC)
SECOND = datetime(2026, 11, 21, 8, tzinfo=UTC)


class Inspected:
    """An answer to inspect that a test can change, and what happens while it is on its way."""

    def __init__(self) -> None:
        self.started = FIRST
        self.times = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, _docker_id: str) -> dict[str, Any]:
        self.times += 1
        answer = {"State": {"StartedAt": self.started.isoformat()}}
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return answer


def test_a_start_is_asked_for_once_while_events_are_followed() -> None:
    inspected = Inspected()
    starts = StartTimes(inspected)
    starts.follow(following=True)
    assert [starts.of("a"), starts.of("a")] == [FIRST, FIRST]
    assert inspected.times == 1


def test_without_a_follower_nothing_is_remembered() -> None:
    inspected = Inspected()
    starts = StartTimes(inspected)
    starts.of("a")
    starts.of("a")
    assert inspected.times == 2


@pytest.mark.parametrize(
    "forget", [lambda s: s.forget("a"), lambda s: s.keep({"b"}), lambda s: s.follow(following=True)]
)
def test_what_may_have_changed_is_asked_for_again(forget: Callable[[StartTimes], None]) -> None:
    inspected = Inspected()
    starts = StartTimes(inspected)
    starts.follow(following=True)
    starts.of("a")
    inspected.started = SECOND
    forget(starts)
    assert starts.of("a") == SECOND


@pytest.mark.parametrize(
    "happens", [lambda s: s.forget("a"), lambda s: s.follow(following=False), lambda s: s.follow(following=True)]
)
def test_an_answer_that_an_event_overtook_is_not_remembered(happens: Callable[[StartTimes], None]) -> None:
    inspected = Inspected()
    starts = StartTimes(inspected)
    starts.follow(following=True)
    inspected.meanwhile = lambda: happens(starts)
    assert starts.of("a") == FIRST
    inspected.started = SECOND
    assert starts.of("a") == SECOND


def test_a_question_that_failed_is_asked_again() -> None:
    inspected = Inspected()
    starts = StartTimes(inspected)
    starts.follow(following=True)

    def fail() -> None:
        raise ValueError("away")

    inspected.meanwhile = fail
    with pytest.raises(ValueError, match="away"):
        starts.of("a")
    assert starts.of("a") == FIRST
