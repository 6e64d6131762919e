"""Canonical JSON: one form of a value that both databases give back unchanged, and its bytes for hashing.

PostgreSQL's JSONB keeps numbers as decimals and refuses NUL; SQLite keeps the text. What passes `plain` first is equal
to itself after a trip through either. Foreign data (reports, arguments) passes it before it is stored or hashed.
"""

import json
import math
import re
from typing import Any

#: PostgreSQL stores no NUL in text; a lone surrogate has no UTF-8 form.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
#: Beyond it JSON readers disagree (RFC 8259, section 6), and Python refuses to print very long integers.
_LARGEST_INTEGER = 2**63
#: Kept, because `json.dumps` with options makes one anew for every call.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def text(value: str) -> str:
    """Return `value` with every character replaced by U+FFFD that a database would refuse."""
    return _UNSTORABLE.sub("\ufffd", value)


def plain(value: Any) -> Any:
    """Return a JSON value that reads back the same from SQLite and PostgreSQL.

    A float without fraction becomes an integer (1e16 comes back from JSONB as one anyway), an infinite one its name,
    an integer beyond 64 bits its hexadecimal text; unstorable characters become U+FFFD.
    """
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return value if value.isascii() and "\x00" not in value else text(value)
    return _plain_number(value)


def _plain_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
        return hex(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} is no JSON value")


def read(text: str | bytes) -> Any:
    """Read JSON that others wrote, strictly: UTF-8, no key twice in an object, no NaN or infinity (see RFC 8259).

    Two readers could take different values from a key twice, and from bytes whose encoding each guesses. Raises
    ValueError, RecursionError for deep nesting.
    """
    read = text.decode() if isinstance(text, bytes) else text  # `json` would take UTF-16 and UTF-32, too
    return json.loads(read, object_pairs_hook=_once, parse_constant=_refuse_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def encode(value: Any) -> bytes:
    """Return the bytes of a plain value: keys sorted, no spaces, ASCII with \\u escapes, floats as Python's repr."""
    return _ENCODER.encode(value).encode("ascii")
