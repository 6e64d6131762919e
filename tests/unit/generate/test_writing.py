"""Files are written whole or not at all, and in nobody's way."""

from pathlib import Path

import pytest

from fleet import errors
from fleet.generate.writing import write

FILES = {"a.txt": b"one", "deep/b.txt": b"two"}


def found(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_is_made_and_nothing_else_is_left_in_it(tmp_path: Path, force: bool) -> None:  # noqa: FBT001
    paths = write(FILES, tmp_path / "out" / "here", force=force)
    assert paths == {name: tmp_path / "out" / "here" / name for name in FILES}
    assert found(tmp_path / "out" / "here") == FILES
    assert {path.stat().st_mode & 0o777 for path in paths.values()} == {0o644}


def test_a_file_that_is_there_is_left_as_it_is_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_bytes(b"somebody's")
    with pytest.raises(errors.Refused, match=r"deep/b\.txt is there already"):
        write(FILES, tmp_path, force=False)
    assert found(tmp_path) == {"deep/b.txt": b"somebody's"}
    write(FILES, tmp_path, force=True)
    assert found(tmp_path) == FILES


def test_the_same_again_is_no_trouble(tmp_path: Path) -> None:
    write(FILES, tmp_path, force=False)
    before = (tmp_path / "a.txt").stat()
    write(FILES, tmp_path, force=False)
    after = (tmp_path / "a.txt").stat()
    # Its inode and the time of its last change: it was read, to compare it, and that has a time of its own.
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"somebody's")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").symlink_to(elsewhere)
    with pytest.raises(errors.Refused):
        write(FILES, tmp_path / "out", force=False)
    write(FILES, tmp_path / "out", force=True)
    assert elsewhere.read_bytes() == b"somebody's"
    assert not (tmp_path / "out" / "a.txt").is_symlink()


def test_an_output_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(errors.InvalidValue, match=r"output directory: .* is a file"):
        write(FILES, tmp_path / "out", force=True)


def test_an_output_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.LocalFault, match=r"output directory .* cannot be written"):
        write(FILES, tmp_path / "file" / "out", force=False)
    with pytest.raises(errors.LocalFault, match=r"Permission denied|No such file|not permitted"):
        write(FILES, Path("/proc/self/out"), force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
