"""Leftovers: what a put that was cut short leaves beside its target, and how it goes away.

The new content lies in a file of its own until it takes the target's name. Before that file is made, a note about it is
on the disk; the note goes when the file has. A worker that starts removes what the notes of a former one name, as it
never will finish it: a put that began is not begun again.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet import errors, logs
from workers.host.files import beneath, faults

log = logs.get(__name__)

_PREFIX = ".fleet-put-"


class Leftovers:
    """The notes of one host, a small file each, in a directory of the worker's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def beside(self, directory: int, *, run_id: str, root: str, path: str) -> Iterator[str]:
        """Give a name for a file in an open directory, whose path below a root is `path`.

        What bears that name when the block ends is removed; there is a note of it until then.
        """
        name = f"{_PREFIX}{run_id.rpartition(':')[2]}-{secrets.token_hex(4)}"
        note = self._directory / name
        with faults.told(str(note)):
            self._write(note, {"root": root, "directory": path})
        try:
            yield name
        finally:
            try:
                _remove(name, directory)
                note.unlink()
            except OSError as exc:
                _tell(note, exc)

    def take_up(self) -> None:
        """Remove what a former worker has left; where that cannot be done now, the next start tries again."""
        for note in sorted(self._directory.glob(f"{_PREFIX}*")):
            try:
                told = json.loads(note.read_text())
                _remove_from(told["root"], told["directory"], note.name)
                note.unlink()
            except (ValueError, KeyError, TypeError):  # cut short itself: its file was never made
                note.unlink(missing_ok=True)
            except (OSError, errors.FleetError) as exc:
                _tell(note, exc)

    def _write(self, note: Path, told: dict[str, str]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
                json.dump(told, file)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self._directory)
        except OSError:
            note.unlink(missing_ok=True)
            raise


def _remove_from(root: str, directory: str, name: str) -> None:
    try:
        with beneath.root(root) as opened, opened.opened(directory) as descriptor:
            _remove(name, descriptor)
    except errors.TaskFailed as exc:
        # A root that is not there may be mounted later; a directory that has gone, or is another, has nothing of ours.
        if exc.kind not in {"no_such_file", "not_a_directory", "outside"}:
            raise


def _remove(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _tell(note: Path, cause: Exception) -> None:
    log.warning("file.left_over", note=str(note), error=str(cause), next="the next start of the worker tries again")


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
