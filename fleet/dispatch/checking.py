"""Checking single values of a push: texts, durations, moments. Each error names the option as the caller wrote it."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fleet import errors
from fleet.contracts.envelope import DEEPEST_METADATA, is_deep

#: A duration: seconds or a timedelta.
Duration = float | timedelta
#: A moment: unix seconds or a datetime with a time zone.
Moment = float | datetime


def text(field: str, value: str, *, most: int) -> str:
    """Return a text that can travel and be stored; raise `errors.InvalidValue` for what cannot."""
    problem = remedy = ""
    if not isinstance(value, str):
        problem, remedy = "is no text", "write it in quotes"
    elif len(value) > most:
        problem, remedy = f"has {len(value):,} characters", f"{most:,} are the most"
    elif not _encodes(value):
        problem, remedy = "has half of a surrogate pair in it", "decode it as UTF-8 first"
    if problem:
        raise errors.InvalidValue(field=field, value=value, problem=problem, remedy=remedy)
    return value


def metadata(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata that can travel as JSON; raises `errors.InvalidValue` for what cannot."""
    try:
        json.dumps(dict(value or {}), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise errors.InvalidValue(
            field="metadata", value=value, problem=f"is not JSON ({exc})", remedy="use texts, numbers, lists, dicts"
        ) from exc
    if is_deep(value, DEEPEST_METADATA):
        raise errors.InvalidValue(
            field="metadata",
            value="it",
            problem="is nested too deeply",
            remedy=f"{DEEPEST_METADATA} levels are the most",
        )
    return dict(value or {})


def seconds(field: str, value: Duration) -> float:
    """Return a duration in seconds, zero or more; raises `errors.InvalidValue`."""
    found = value.total_seconds() if isinstance(value, timedelta) else _number(value)
    if not math.isfinite(found):
        raise errors.InvalidValue(
            field=field, value=value, problem="is no duration", remedy="give seconds or a timedelta"
        )
    if found < 0:
        raise errors.InvalidValue(field=field, value=value, problem="is negative", remedy="give 0 or more")
    return found


def moment(field: str, value: Moment) -> float:
    """Return a moment in unix seconds; raises `errors.InvalidValue`."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise errors.InvalidValue(
                field=field, value=value, problem="has no time zone", remedy="use datetime.now(UTC) + …"
            )
        return value.astimezone(UTC).timestamp()
    found = _number(value)
    if not math.isfinite(found):
        raise errors.InvalidValue(
            field=field, value=value, problem="is no moment", remedy="give a datetime, or unix seconds"
        )
    return found


def _number(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]  # just checked


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
