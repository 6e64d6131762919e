"""Quantities: sizes in bytes and durations in seconds, as numbers or as people write them for Docker.

A size is a whole number, or text such as "512m" or "1.5GiB", where every unit is a power of 1024, as in Docker. A
duration is a number, or text such as "90s", "1m30s" or "500ms". Both arrive as numbers.
"""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator

_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,9})?) ?(?:([kmgtp]?)(?:i?b)?)", re.IGNORECASE | re.ASCII)
_UNITS = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86_400)}


def parse_bytes(text: str) -> int:
    """Return the bytes that a text such as "512m" says; raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write bytes, or 512k, 64m, 1.5g")
    return int(Decimal(match[1]) * _UNITS[match[2].lower()])


def parse_seconds(text: str) -> float:
    """Return the seconds that a text such as "1m30s" says; a bare number is seconds. Raises ValueError."""
    wanted = text.strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", wanted, re.ASCII):
        return float(wanted)
    parts = list(_DURATION.finditer(wanted))
    if not parts or "".join(part[0] for part in parts) != wanted:
        raise ValueError(f"{text!r} is no duration; write seconds, or 500ms, 90s, 1m30s, 2h")
    return float(sum((Decimal(part[1]) * _SECONDS[part[2]] for part in parts), Decimal(0)))


def _bytes(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, str) else _number(value)


def _seconds(value: Any) -> Any:
    return parse_seconds(value) if isinstance(value, str) else _number(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # Python takes it for 0 or 1
        raise ValueError("is true or false, and a number is wanted")  # noqa: TRY004 - pydantic collects these
    return value


#: A size in bytes.
Bytes = Annotated[int, BeforeValidator(_bytes)]
#: A duration in seconds.
Seconds = Annotated[float, BeforeValidator(_seconds)]
