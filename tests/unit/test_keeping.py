"""Secrets as files: whole or not there, and gone when nobody has them."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fleet import errors
from workers.host.containers.keeping import SecretFiles

RUN, OTHER = (f"h1:01900000-0000-7000-8000-00000000000{number}" for number in (1, 2))


@pytest.fixture
def files(on_tmpfs: Path, tmp_path: Path) -> SecretFiles:
    return SecretFiles(on_tmpfs, tmp_path)


def left(files: SecretFiles) -> set[str]:
    return {str(path.relative_to(files.directory)) for path in files.directory.rglob("*") if path.is_file()}


def kept(files: SecretFiles, run: str = RUN) -> None:
    files.write(run, {"a": b"one", "b": b"two"})
    files.settle(run, docker_id="d" * 64, uid=os.geteuid(), gid=os.getegid())
    files.done(run)


def nobody(_name: str) -> bool:
    return False


def test_what_belongs_to_no_container_is_removed_and_what_is_in_hand_is_not(files: SecretFiles) -> None:
    kept(files)
    files.write(OTHER, {"a": b"three"})
    assert files.reconcile(set(), is_there=nobody) == []
    assert left(files) == {f"{OTHER.partition(':')[2]}/a"}


def test_a_container_that_was_made_since_the_list_keeps_its_secrets(files: SecretFiles) -> None:
    kept(files)
    asked: list[str] = []

    def is_there(name: str) -> bool:
        asked.append(name)
        return True

    assert files.reconcile(set(), is_there=is_there) == []
    assert asked == [RUN.partition(":")[2]]
    assert len(left(files)) == 2


def test_what_lies_nowhere_any_more_is_written_again(files: SecretFiles) -> None:
    kept(files)
    shutil.rmtree(files.directory)
    (again,) = files.reconcile({RUN}, is_there=nobody)
    assert (again.run, again.docker_id) == (RUN, "d" * 64)
    name = RUN.partition(":")[2]
    assert {path.name: path.read_bytes() for path in (files.directory / name).iterdir()} == {"a": b"one", "b": b"two"}


def test_a_full_memory_leaves_nothing_behind(files: SecretFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    really = os.open

    def full(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        opened.append(path)
        if len(opened) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(errors.LocalFault, match="No space left on device"):
        files.write(RUN, {"a": b"one", "b": b"two"})
    assert left(files) == set()


def test_what_a_killed_worker_had_half_written_is_removed(files: SecretFiles) -> None:
    files.write(OTHER, {"a": b"x"})
    half = files.directory / f".{RUN.partition(':')[2]}"
    half.mkdir()
    (half / "a").write_bytes(b"one")
    files.reconcile(set(), is_there=nobody)
    assert left(files) == {f"{OTHER.partition(':')[2]}/a"}


def test_a_disk_is_no_place_for_secrets(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path / "secrets", tmp_path)
    with pytest.raises(errors.LocalFault, match="is not on a tmpfs"):
        files.write(RUN, {"a": b"one"})
    assert not (tmp_path / "secrets").exists()


def test_the_values_of_all_containers_and_the_key_are_known_so_that_nothing_shows_them(files: SecretFiles) -> None:
    assert files.values() == set()
    kept(files)
    files.write(OTHER, {"c": b"three\n"})
    key = (files._state.parent / "secrets.key").read_bytes()
    assert files.values() == {b"one", b"two", b"three", key}
