"""What people write on the command line, and what they are told when it is wrong."""

from datetime import timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors
from fleet.cli import types, when


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("15m", 900), ("1h30m", 5400), ("2d", 172_800), ("1d1h1m1s", 90_061), ("1H", 3600)],
)
def test_a_duration_has_units(text: str, seconds: int) -> None:
    assert types.DURATION.convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "15", "m", "-5s", "5 s", "1.5h", "30m1h", "0s", "99999d", "9" * 40 + "s", "１５m"]
)
def test_a_duration_that_is_none_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(click.BadParameter, match="'") as caught:
        types.DURATION.convert(text, None, None)
    assert repr(text) in caught.value.message


@given(st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=3000)))
def test_a_span_of_whole_units_is_read_back(duration: timedelta) -> None:
    whole = timedelta(seconds=int(duration.total_seconds()))
    shown = when.span(whole)
    read = types.DURATION.convert(shown, None, None)
    assert abs(read - whole) <= whole / 9


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0ms"),
        (0.25, "250ms"),
        (1, "1s"),
        (59.6, "1m"),
        (72, "1m12s"),
        (3600, "1h"),
        (45_000, "12h"),
        (90_000, "1d1h"),
    ],
)
def test_a_span_is_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert when.span(seconds) == shown


def test_a_wrong_host_id_says_what_one_looks_like() -> None:
    with pytest.raises(errors.InvalidValue, match=r"host id: 'Web_1' is not a host id; use 1 to 63"):
        types.HOST_ID.convert("Web_1", None, None)


def test_selectors_add_up() -> None:
    one = types.SELECTOR.convert("env=prod,site=basel", None, None)
    assert types.merge([one, {"tier": "1"}]) == {"env": "prod", "site": "basel", "tier": "1"}
    assert types.merge([]) is None


@pytest.mark.parametrize("text", ["", "env", "=prod", "env=prod,", ",", "env=a,env=b"])
def test_a_selector_that_is_empty_or_cannot_match_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        types.SELECTOR.convert(text, None, None)


def test_two_selectors_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(click.UsageError, match="no host has both"):
        types.merge([{"env": "prod"}, {"env": "test"}])


def test_labels_are_set_and_removed() -> None:
    assert types.changes(["env=prod", "note=", "site-"]) == ({"env": "prod", "note": ""}, {"site"})


@pytest.mark.parametrize("words", [["env"], ["-"], ["=x"], ["env=a", "env-"]])
def test_a_label_change_that_means_nothing_is_refused(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        types.changes(words)


def test_since_is_a_duration_or_a_moment() -> None:
    assert types.SINCE.convert("10m", None, None) == timedelta(minutes=10)
    assert types.SINCE.convert("2026-01-02T03:04Z", None, None).isoformat() == "2026-01-02T03:04:00+00:00"
    for text in ("", "noon", "10"):
        with pytest.raises(click.BadParameter):
            types.SINCE.convert(text, None, None)


@pytest.mark.parametrize(("text", "lines"), [("all", "all"), ("0", 0), ("1000", 1000)])
def test_lines_are_a_number_or_all(text: str, lines: object) -> None:
    assert types.LINES.convert(text, None, None) == lines


@pytest.mark.parametrize("text", ["", "-1", "1.5", "few", "99999999", "１"])
def test_what_is_no_number_of_lines_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no number of lines"):
        types.LINES.convert(text, None, None)
