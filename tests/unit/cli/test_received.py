"""What hosts say of their files is not believed to be a reply, and nothing of this machine is overwritten by it."""

import stat
from pathlib import Path
from typing import Any

import click
import pytest

from fleet import errors
from fleet.cli import received
from fleet.client import Outcome
from fleet.contracts.files import GET, LIST

REPLY: dict[str, Any] = {
    "content": "aGVsbG8=",
    "size": 5,
    "mode": "4644",
    "owner": "root",
    "group": "root",
    "modified": "2026-01-02T03:04:05Z",
    "sha256": "",
}


def outcome(**more: Any) -> Outcome:
    return Outcome("edge-7:1", "edge-7", "succeeded", reply={**REPLY, **more})


@pytest.mark.parametrize(
    "lie",
    [
        {"content": "?"},
        {"content": None},
        {"mode": "rw-r--r--"},
        {"modified": "2026-01-02T03:04:05"},
        {"modified": "yesterday"},
        {"size": "large"},
    ],
    ids=str,
)
def test_what_is_no_reply_is_an_error_of_that_host(lie: dict[str, Any]) -> None:
    found = received.checked(outcome(**lie), GET)
    assert (found.state, found.reply) == ("unknown", None)
    assert isinstance(found.error, errors.ResultForged)


def test_what_is_one_has_all_its_fields() -> None:
    assert received.checked(outcome(), GET).reply == REPLY
    empty = received.checked(Outcome("edge-7:1", "edge-7", "succeeded", reply={}), LIST)
    assert empty.reply == {"entries": [], "truncated": False}
    failed = Outcome("edge-7:1", "edge-7", "failed", error=errors.TaskFailed("no"))
    assert received.checked(failed, GET) is failed


def test_a_file_that_comes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    place = received.place("/etc/hosts", str(tmp_path / "file"), single=True, force=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(click.UsageError, match="is there already"):
        place.keep("edge-7", REPLY)
    assert (tmp_path / "file").read_text() == "mine"
    assert received.place("/etc/hosts", str(tmp_path / "file"), single=True, force=True).keep("edge-7", REPLY)
    assert (tmp_path / "file").read_text() == "hello"


def test_no_link_of_this_machine_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    for name in ("link", "lost"):
        with pytest.raises(click.UsageError):
            received.place("/etc/hosts", str(tmp_path / name), single=True, force=False)
        received.place("/etc/hosts", str(tmp_path / name), single=True, force=True).keep("edge-7", REPLY)
        assert (tmp_path / name).read_text() == "hello"
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "gone").exists()


def test_a_directory_gets_the_file_by_its_name_and_no_file_gets_special_rights(tmp_path: Path) -> None:
    kept = received.place("/etc/hosts", str(tmp_path), single=True, force=False).keep("edge-7", REPLY)
    assert kept == tmp_path / "hosts"
    assert not stat.S_IMODE(kept.stat().st_mode) & 0o7111


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    place = received.place("/etc/hosts", str(tmp_path / "no" / "file"), single=True, force=False)
    with pytest.raises(errors.LocalFault, match="cannot be written"):
        place.keep("edge-7", REPLY)
