"""Types of arguments: durations, moments, host ids, labels, selectors, risks: each error says what is right."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from click.shell_completion import CompletionItem

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
#: Longer than any of Fleet's own limits; keeps sums of dates within what datetime can hold.
_LONGEST = timedelta(days=3650)


class _Duration(click.ParamType[timedelta, Any]):
    """`15m`, `60s`, `1h30m`, `2d`; a bare number is refused, because nobody knows its unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _DURATION.fullmatch(value.strip().lower()) if value.strip() else None
        if match is None:
            self.fail(f"{value!r} is no duration; write it like 15m, 60s, 1h30m or 2d", param, ctx)
        if max(len(part or "") for part in match.groups()) > 9:
            self.fail(f"{value!r} is longer than ten years", param, ctx)
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if not timedelta(0) < duration <= _LONGEST:
            self.fail(f"{value!r} must be more than nothing and at most ten years", param, ctx)
        return duration

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "DURATION"


class _Moment(click.ParamType[datetime, Any]):
    """A moment after ISO 8601, such as `2030-01-31T22:00` or `2030-01-31T22:00Z`; local time where it names no zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value.strip()).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no moment; write it like 2030-01-31T22:00 or 2030-01-31T22:00+01:00", param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "MOMENT"


class _Since(click.ParamType[Any, Any]):
    """A duration (`10m`: within the last ten minutes), or a moment."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta | datetime:
        if isinstance(value, timedelta | datetime):
            return value
        if _DURATION.fullmatch(value.strip().lower()):
            return DURATION.convert(value, param, ctx)
        try:
            return MOMENT.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither a duration (10m, 2h) nor a moment (2030-01-31T22:00)", param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "DURATION|MOMENT"


class _Lines(click.ParamType[Any, Any]):
    """How many lines: a whole number, or `all`."""

    name = "lines"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "all" or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if not value.isascii() or not value.isdigit() or len(value) > 7:
            self.fail(f"{value!r} is no number of lines; write one, or `all`", param, ctx)
        return int(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N|all"


class _HostId(click.ParamType[str, Any]):
    """A host id, or a name of that form; anything else raises `errors.InvalidValue`, which says what one looks like."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from fleet import names

        return names.host_id(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer hosts, where a host is asked for: principals are named in the same form."""
        if not (param.name or "").startswith("host"):
            return []
        from fleet.cli import completing

        return [CompletionItem(host) for host in completing.hosts(ctx, param, incomplete)]


class _Pair(click.ParamType[tuple[str, str], Any]):
    """`KEY=VALUE`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, separator, text = value.partition("=")
        if not separator or not key.strip():
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key.strip(), text

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "KEY=VALUE"


class _Selector(click.ParamType[dict[str, str], Any]):
    """`KEY=VALUE` or several of them with commas; never empty, since that would be every host."""

    name = "selector"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        selector: dict[str, str] = {}
        for part in value.split(","):
            key, separator, text = part.partition("=")
            if not separator or not key.strip():
                self.fail(f"{value!r} is no selector; write KEY=VALUE, or KEY=VALUE,KEY=VALUE", param, ctx)
            if selector.setdefault(key.strip(), text.strip()) != text.strip():
                self.fail(f"{value!r} asks for two values of {key.strip()!r}, which no host has", param, ctx)
        return selector

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "KEY=VALUE"


class _Risks(click.ParamType[Any, Any]):
    """Risks with commas (`reads,changes`), `all` of them, or `none`."""

    name = "risks"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        from fleet.contracts import Risk

        if isinstance(value, tuple):
            return value
        words = [] if value == "none" else list(Risk) if value == "all" else value.split(",")
        if unknown := [word for word in words if word not in set(Risk)]:
            known = ", ".join(Risk)
            self.fail(f"{unknown[0]!r} is no risk; write some of {known} with commas, or all, or none", param, ctx)
        return tuple(risk for risk in Risk if risk in words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "RISKS"


DURATION = _Duration()
HOST_ID = _HostId()
LINES = _Lines()
MOMENT = _Moment()
PAIR = _Pair()
RISKS = _Risks()
SELECTOR = _Selector()
SINCE = _Since()


def unique(pairs: Sequence[tuple[str, str]], *, option: str) -> dict[str, str]:
    """Return `KEY=VALUE` pairs as a dictionary; a key that is given twice is a slip, and which one counts a guess."""
    found: dict[str, str] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise click.UsageError(f"{option} {key}={found[key]} and {option} {key}={value}: give it once")
    return found


def merge(selectors: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """Return several `-l` as one selector, None where there is none; a host must match all of it."""
    merged: dict[str, str] = {}
    for selector in selectors:
        for key, value in selector.items():
            if merged.setdefault(key, value) != value:
                raise click.UsageError(f"-l {key}={merged[key]} and -l {key}={value}: no host has both")
    return merged or None


def changes(words: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Split `KEY=VALUE` and `KEY-` into the labels to set and those to remove."""
    to_set: dict[str, str] = {}
    to_remove: set[str] = set()
    for word in words:
        key, separator, value = word.partition("=")
        if separator and key:
            to_set[key] = value
        elif not separator and word.endswith("-") and len(word) > 1:
            to_remove.add(word[:-1])
        else:
            raise click.UsageError(f"{word!r} is neither KEY=VALUE (set a label) nor KEY- (remove it)")
    if both := to_set.keys() & to_remove:
        raise click.UsageError(f"label {min(both)!r} is both set and removed")
    return to_set, to_remove
