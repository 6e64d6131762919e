"""What a caller says about a push becomes fields of the envelope, or an error that names the option."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors, names
from fleet.contracts import hosts
from fleet.contracts.envelope import Envelope, Limits, Retry
from fleet.dispatch import Options
from tests import factories

NOW = 1_750_000_000.0
EDGE_7 = factories.identity("edge-7")


def envelope(**wishes: Any) -> Envelope:
    return Options(**wishes).envelope(host=EDGE_7, principal="alice", contract=hosts.PING, now=NOW)


def test_nothing_said_leaves_all_to_the_contract() -> None:
    found = envelope()
    assert (found.not_before, found.not_after, found.limits, found.retry) == (None, None, None, Retry())
    assert (found.host, found.submitted_by, found.submitted_at) == ("edge-7", "alice", NOW)
    assert found.host_key == EDGE_7.key, "it is for this machine, not for any that has its name"


@pytest.mark.parametrize(
    ("wishes", "not_before"),
    [
        ({"countdown": 60}, NOW + 60),
        ({"countdown": timedelta(minutes=1)}, NOW + 60),
        ({"eta": NOW + 5.5}, NOW + 5.5),
        ({"eta": datetime.fromtimestamp(NOW + 60, UTC)}, NOW + 60),
        ({"countdown": 0}, None),
        ({"eta": NOW - 60}, None),
    ],
)
def test_a_beginning_is_a_moment_by_the_brokers_clock(wishes: dict[str, Any], not_before: float | None) -> None:
    assert envelope(**wishes).not_before == not_before


def test_limits_are_seconds_and_the_contracts_own_goes_with_a_soft_one_alone() -> None:
    assert envelope(time_limit=timedelta(minutes=1), soft_time_limit=30).limits == Limits(
        soft_seconds=30, hard_seconds=60
    )
    assert envelope(soft_time_limit=30).limits == Limits(soft_seconds=30, hard_seconds=3600)
    assert envelope(time_limit=0.5).limits == Limits(hard_seconds=0.5)


def test_a_wait_that_was_asked_for_is_not_cut_down_by_a_maximum_that_was_not() -> None:
    assert envelope(max_retries=3, retry_backoff=2).retry == Retry(max_retries=3, backoff_seconds=2)
    long = envelope(max_retries=3, retry_backoff=timedelta(hours=1)).retry
    assert (long.backoff_seconds, long.backoff_max_seconds) == (3600, 3600)


def test_an_expiry_that_queueing_adds_begins_when_the_task_may() -> None:
    assert envelope(offline="queue").not_after == NOW + 86_400
    assert envelope(offline="queue", countdown=3 * 86_400).not_after == NOW + 4 * 86_400


@pytest.mark.parametrize(
    ("wishes", "field", "said"),
    [
        ({"countdown": -1}, "countdown", "is negative"),
        ({"countdown": float("nan")}, "countdown", "is no duration"),
        ({"countdown": True}, "countdown", "is no duration"),
        ({"countdown": "soon"}, "countdown", "is no duration"),
        ({"countdown": timedelta(days=31)}, "countdown", "30 days are the most"),
        ({"eta": datetime(2030, 1, 1)}, "eta", "has no time zone"),  # noqa: DTZ001 - that is the point
        ({"eta": float("inf")}, "eta", "is no moment"),
        ({"eta": NOW + 86_400 * 31}, "eta", "is too far away"),
        ({"expires": 0}, "expires", "is over already"),
        ({"expires": datetime.fromtimestamp(NOW - 1, UTC)}, "expires", "is over already"),
        ({"expires": 60, "countdown": 60}, "expires", "is over before the task may begin"),
        ({"time_limit": 0}, "time_limit", "greater than 0"),
        ({"time_limit": timedelta(days=8)}, "time_limit", "less than or equal to"),
        ({"soft_time_limit": 0}, "soft_time_limit", "greater than 0"),
        ({"soft_time_limit": 60, "time_limit": 60}, "soft_time_limit", "is not shorter than time_limit of 60 s"),
        ({"soft_time_limit": 3600}, "soft_time_limit", "is not shorter than the task's own limit of 3600 s"),
        ({"max_retries": 101}, "max_retries", "less than or equal to 100"),
        ({"max_retries": -1}, "max_retries", "greater than or equal to 0"),
        ({"max_retries": 1.5}, "max_retries", "integer"),
        ({"retry_backoff": 5}, "retry_backoff", "give max_retries as well"),
        ({"retry_backoff_max": 5, "max_retries": 0}, "retry_backoff_max", "give max_retries as well"),
        ({"max_retries": 1, "retry_backoff": 9, "retry_backoff_max": 5}, "retry_backoff_max", "shorter than the first"),
        ({"max_retries": 1, "retry_backoff": 86_401}, "retry_backoff", "less than or equal to"),
        ({"retry_of": "edge-7:123"}, "task id", "is not a task id"),
        ({"description": "x" * 4097}, "description", "4,096 are the most"),
        ({"description": "\ud800"}, "description", "half of a surrogate pair"),
        ({"description": 5}, "description", "is no text"),
        ({"metadata": {"a": "\udc00"}}, "metadata", "is not JSON"),
        ({"metadata": {"a": float("nan")}}, "metadata", "is not JSON"),
    ],
)
def test_an_option_that_cannot_be_is_named(wishes: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        envelope(**wishes)
    assert caught.value.field == field
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_countdown_and_eta_exclude_each_other() -> None:
    with pytest.raises(errors.UsageError, match="countdown and eta: use one of the two"):
        envelope(countdown=5, eta=NOW + 5)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "expires": st.floats(),
            "countdown": st.floats() | st.timedeltas(),
            "time_limit": st.floats() | st.timedeltas(),
            "soft_time_limit": st.floats() | st.integers(),
            "max_retries": st.integers(),
            "retry_backoff": st.floats(),
            "retry_backoff_max": st.floats(),
            "description": st.text() | st.characters(categories=["Cs"]),
            "retry_of": st.text() | st.just(names.new_run_id("edge-7")),
            "offline": st.sampled_from(["fail", "queue"]),
        },
    )
)
def test_whatever_is_said_there_is_an_envelope_that_travels_or_a_usage_error(wishes: dict[str, Any]) -> None:
    try:
        found = envelope(**wishes)
    except errors.UsageError:
        return
    assert Envelope.model_validate_json(found.model_dump_json()) == found
    assert found.not_after is None or found.not_after > (found.not_before or NOW)
    if found.limits and found.limits.soft_seconds:
        assert found.limits.soft_seconds < found.limits.hard_seconds
