"""Contents: what somebody wants to write into a file, as whoever approves it reads it."""

import base64
import hashlib
from typing import Any


def size(content: object) -> str:
    """Return how much there is in the base64 of a file's content; what is none, as it is."""
    data = _decoded(content)
    return str(content) if data is None else f"{len(data):,} bytes"


def rows(content: object) -> list[tuple[str, Any]]:
    """Return the base64 of a file's content as labels and values: line by line where it is text."""
    data = _decoded(content)
    if data is None:
        return [("Content", content)]
    try:
        shown: Any = data.decode().split("\n") if data else "nothing"
    except UnicodeDecodeError:
        shown = "not text; `-o json` has it in base64"
    return [("Size", size(content)), ("SHA-256", hashlib.sha256(data).hexdigest()), ("Content", shown)]


def _decoded(content: object) -> bytes | None:
    try:
        return base64.b64decode(str(content), validate=True)
    except ValueError:
        return None
