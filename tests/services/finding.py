"""Finding something in directories in which programs are at work: a file that goes meanwhile is not there."""

import os
from collections.abc import Iterator
from pathlib import Path


def contents(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the files below a directory, with what is in them."""
    for parent, _directories, names in os.walk(directory):
        for path in (Path(parent, name) for name in names):
            try:
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            except OSError:
                continue
            if content is not None:
                yield path, content


def holding(directory: Path, text: str) -> list[Path]:
    """Return the files below a directory that hold a text."""
    return [path for path, content in contents(directory) if text.encode() in content]
