"""Labeling: the form of labels, by which hosts are chosen, and the selectors that name some of them."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, false
from sqlmodel import col

from fleet import errors

#: As in Kubernetes: up to 63 letters, digits, '-', '_', '.', '/', beginning and ending with a letter or digit.
LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?")
#: The registry hash carries every host's labels to every principal.
MOST = 64


def having(column: Any, selector: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Return `matches` as conditions on a column of labels."""
    if not all(LABEL.fullmatch(key) and (not value or LABEL.fullmatch(value)) for key, value in selector.items()):
        return [false()]  # nothing has such a label, and not every database can be asked for it
    return [col(column)[key].as_string() == value for key, value in selector.items()]


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Say whether labels have every pair of the selector."""
    return all(labels.get(key) == value for key, value in selector.items())


def check(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels; raise `errors.InvalidValue` that names a wrong key or value, or says there are too many."""
    for key, value in labels.items():
        _check("label", key)
        if value:  # an empty value is a mark: it is there or not
            _check(f"value of label {key!r}", value)
    if len(labels) > MOST:
        raise errors.InvalidValue(
            field="labels", value=len(labels), problem="are too many", remedy=f"a host may have {MOST}"
        )
    return dict(labels)


def _check(field: str, value: str) -> None:
    if not LABEL.fullmatch(value):
        raise errors.InvalidValue(
            field=field,
            value=value,
            problem="cannot be used",
            remedy="use 1 to 63 letters, digits, '-', '_', '.' and '/', beginning and ending with a letter or digit",
        )
