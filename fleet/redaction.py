"""Redaction: what may be shown of a text that came from elsewhere, or that carries a secret."""

import re
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

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
    """Return a URL with its password masked, and the values of its query, fit for a log or an error."""
    try:
        parts = urlsplit(value)
        password = parts.password
    except ValueError:
        return "***"
    if "@" in parts.path + parts.query + parts.fragment:  # a password with an unescaped /, ? or # ends up there
        return f"{parts.scheme}://***"
    if password is None and not parts.query:
        return value
    host = parts.netloc.rpartition("@")[2]
    netloc = parts.netloc if password is None else f"{parts.username or ''}:***@{host}"
    query = "&".join(f"{quote(name)}=***" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit(parts._replace(netloc=netloc, query=query))
