"""Writing: files into a directory, each whole or not at all, and none where one of them would be in the way of another.

A file that is there with the very content that is to be written is left as it is.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fleet import errors

_MODE = 0o644


def write(files: Mapping[str, bytes], directory: Path, *, force: bool) -> dict[str, Path]:
    """Write all of them, in directories that are made where they are missing; return name → path.

    Raises `errors.InvalidValue` for a directory that is none, `errors.Refused` where a file is there already that
    differs, and `errors.LocalFault` where something cannot be written.
    """
    if directory.exists() and not directory.is_dir():
        raise errors.InvalidValue(
            field="output directory", value=str(directory), problem="is a file", remedy="name a directory"
        )
    paths = {name: directory / name for name in files}
    try:
        different = [name for name, path in paths.items() if not _is_fit(path, files[name])]
        there = [name for name in different if os.path.lexists(paths[name])]
        if there and not force:
            raise errors.Refused(
                f"{directory}: {', '.join(there)} {'is' if len(there) == 1 else 'are'} there already, with another "
                "content; nothing was written",
                remedy="name another directory, or overwrite with --force",
            )
        for name in different:
            _write(paths[name], files[name], force=force)
    except OSError as exc:
        raise errors.LocalFault(
            f"output directory {directory}: cannot be written ({exc.strerror})",
            remedy="name one where you may write, on a disk with room",
        ) from exc
    return paths


def _is_fit(path: Path, content: bytes) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == content


def _write(path: Path, content: bytes, *, force: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())
        if force:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)  # unlike a rename it takes the place of nothing that came meanwhile
    finally:
        temporary.unlink(missing_ok=True)
