"""Contents of files that wait for approval."""

import base64
import hashlib

import pytest

from fleet.cli import contents


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"a = 1\nb = 2\n", ["a = 1", "b = 2", ""]),
        ("ü\r\n".encode(), ["ü\r", ""]),
        (b"", "nothing"),
        (b"\xff\x00", "not text; `-o json` has it in base64"),
    ],
)
def test_text_is_shown_line_by_line_and_nothing_else(data: bytes, shown: object) -> None:
    assert contents.rows(base64.b64encode(data).decode()) == [
        ("Size", f"{len(data)} bytes"),
        ("SHA-256", hashlib.sha256(data).hexdigest()),
        ("Content", shown),
    ]


def test_what_is_no_content_is_shown_as_it_is() -> None:
    assert contents.rows("not base64!") == [("Content", "not base64!")]
    assert contents.size("not base64!") == "not base64!"
