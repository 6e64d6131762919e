"""Redaction: text from elsewhere cannot steer a terminal, and passwords stay out of sight."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import redaction


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – Ünï", "plain – Ünï"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\rc\td", "a\\x0ab\\x0dc\\x09d"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
    ],
)
def test_controls_are_shown_and_not_sent(text: str, shown: str) -> None:
    assert redaction.for_terminal(text) == shown


@given(st.text())
def test_what_is_shown_is_printable_apart_from_kept_newlines(text: str) -> None:
    shown = redaction.for_terminal(text, keep_newlines=True)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown.replace("\n", ""))
    assert shown.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://u:p%40ss@h/db", "postgresql://u:***@h/db"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://[::1", "***"),
        ("redis://:se/cret@host:6379/0", "redis://***"),
        ("redis://:se?cret@host:6379/0", "redis://***"),
        ("redis://:se#cret@host:6379/0", "redis://***"),
        (
            "rediss://:secret@host/0?ssl_cert_reqs=none&password=secret",
            "rediss://:***@host/0?ssl_cert_reqs=***&password=***",
        ),
        ("sqlite:////var/lib/fleet/fleet.db", "sqlite:////var/lib/fleet/fleet.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, masked: str) -> None:
    assert redaction.url(url) == masked
