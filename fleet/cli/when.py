"""Times for people: how long ago, how long it took."""

from datetime import datetime, timedelta

from fleet import clock

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def span(duration: timedelta | float) -> str:
    """Return a duration in at most two units: `350ms`, `42s`, `3m12s`, `5h`, `12d`."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f}ms"
    whole = round(seconds)
    for index, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            rest = whole % size
            # The second unit tells something only while the first number is small.
            if whole < 10 * size and index + 1 < len(_UNITS) and rest >= _UNITS[index + 1][0]:
                smaller, smaller_unit = _UNITS[index + 1]
                return f"{whole // size}{unit}{rest // smaller}{smaller_unit}"
            return f"{whole // size}{unit}"
    return "0s"


def ago(moment: datetime | None) -> str:
    """Return `3m ago`, `just now`, `in 5m`, or `never` for None."""
    if moment is None:
        return "never"
    seconds = (clock.now() - moment).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def age(moment: datetime) -> str:
    """Return how long ago a moment was, for a column headed AGE; nothing is younger than 0s."""
    seconds = round((clock.now() - moment).total_seconds())
    return span(seconds) if seconds >= 1 else "0s"


def both(moment: datetime | None) -> str | None:
    """Return the moment itself, and how long ago it was; None stays None."""
    return None if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z} ({ago(moment)})"
