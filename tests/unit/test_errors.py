"""Errors: one tree, all of it in the docstring, each with an exit code."""

import inspect
import re

from fleet import errors


def classes() -> list[type[errors.FleetError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.FleetError) and value is not errors.FleetError
    ]


def test_the_docstring_draws_every_error() -> None:
    drawn = set(re.findall(r"\b[A-Z][A-Za-z]+\b", errors.__doc__ or ""))
    assert {cls.__name__ for cls in classes()} <= drawn


def test_exit_codes_are_the_documented_ones() -> None:
    assert {cls.exit_code for cls in classes()} == {1, 2, 3, 4, 5, 124}


def test_a_wrong_value_is_shown_but_not_at_length() -> None:
    error = errors.InvalidValue(field="host id", value="x" * 300, problem="is too long", remedy="shorten it")
    assert len(str(error)) < 150
    assert error.value == "x" * 300


def test_an_unknown_host_gets_the_nearest_name() -> None:
    assert "did you mean 'web-01'?" in str(errors.HostNotEnrolled("web-1", ["web-01", "db-01"]))
