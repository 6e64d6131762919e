"""Redaction: what may be shown of a text that came from elsewhere, or that carries a secret."""

import re
from urllib.parse import urlsplit, urlunsplit

#: C0, DEL, C1, line separators, bidirectional controls (Unicode PropList, Bidi_Control), surrogates.
_SUSPECT = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escape(match: "re.Match[str]") -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def for_terminal(text: str, *, keep_newlines: bool = False) -> str:
    """Return `text` with every character escaped that could move, recolor or reorder a terminal.

    C0 and C1 controls, DEL, line separators, bidirectional controls and lone surrogates become `\\x1b`-like escapes.
    """
    if keep_newlines:
        return "\n".join(for_terminal(line) for line in text.split("\n"))
    return _SUSPECT.sub(_escape, text)


def url(value: str) -> str:
    """Return a URL with its password masked, fit for a log or an error."""
    try:
        parts = urlsplit(value)
        password = parts.password
    except ValueError:
        return "***"
    if password is None:
        return value
    user = parts.username or ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}"))
