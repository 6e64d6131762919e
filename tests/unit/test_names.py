"""Names: only well-formed ids become keys."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors, names

HOST_IDS = st.from_regex(names.HOST_ID, fullmatch=True)


@pytest.mark.parametrize(
    "value",
    ["", "-a", "a-", "A", "a_b", "a.b", "../x", "a/b", "*", "h?", "a b", "a\n", "Ｈ1", "ä", "x" * 64, "a:b", "h1\x00"],
)
def test_anything_but_a_dns_label_is_refused_with_the_way_out(value: str) -> None:
    with pytest.raises(errors.InvalidValue, match="use 1 to 63 of a-z") as caught:
        names.queue(value)
    assert caught.value.field == "host id"


@given(HOST_IDS)
def test_every_host_id_makes_keys_that_name_it_back(host: str) -> None:
    assert names.host_of_queue(names.queue(host)) == host
    assert names.host_of_run(names.new_run_id(host)) == host


@given(HOST_IDS, HOST_IDS)
def test_no_principal_reports_under_the_name_of_a_host(host: str, principal: str) -> None:
    assert names.reports(names.host_sender(host)) != names.reports(names.principal_sender(principal))


def test_run_ids_are_uuid7_and_sort_by_time() -> None:
    ids = [names.new_run_id("h") for _ in range(1000)]
    numbers = [uuid.UUID(run_id.partition(":")[2]) for run_id in ids]
    assert {number.version for number in numbers} == {7}
    assert {number.variant for number in numbers} == {uuid.RFC_4122}
    assert len(set(ids)) == 1000
    milliseconds = [number.int >> 80 for number in numbers]
    assert milliseconds == sorted(milliseconds)


@pytest.mark.parametrize(
    "value",
    ["", "h1", "h1:", "h1:x", ":00000000-0000-7000-8000-000000000000", "H:00000000-0000-7000-8000-000000000000"],
)
def test_what_is_no_run_id_is_refused(value: str) -> None:
    with pytest.raises(errors.InvalidValue):
        names.host_of_run(value)


@given(st.text())
def test_a_derived_id_is_an_id_or_an_error(text: str) -> None:
    try:
        derived = names.derive_id(text)
    except errors.InvalidValue:
        assert not re.search("[a-z0-9]", text.lower())
    else:
        assert names.HOST_ID.fullmatch(derived)


def test_the_event_channels_of_a_host_match_what_flower_listens_to() -> None:
    prefix = names.fanout_prefix("edge-7")
    assert re.fullmatch(names.FANOUT_PATTERN.replace(".", r"\.").replace("*", ".*"), prefix)
    assert prefix.index(".") == len(prefix) - 1  # kombu cuts the prefix off at the first dot
