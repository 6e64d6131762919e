"""How the tasks are carried out, on the host.

A function gets its request, checked, and a context that knows the run; it returns the reply of its contract.  An error
that the caller should act on is a `TaskFailed` with a `kind` that programs can tell apart.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from fleet.contracts import RunContext
from fleet.errors import TaskFailed
from fleet_disk.contracts import Entry, Free, FreeRequest, Usage, UsageRequest

#: POSIX counts `st_blocks` in units of 512 bytes, whatever the file system's own block size.
_BLOCK_BYTES = 512


def free(request: FreeRequest, context: RunContext) -> Free:
    try:
        total, used, available = shutil.disk_usage(request.path)
    except OSError as exc:
        raise _unusable(request.path, context.host, exc) from exc
    return Free(total_bytes=total, used_bytes=used, free_bytes=available)


def usage(request: UsageRequest, context: RunContext) -> Usage:
    root = Path(request.path)
    try:
        device = root.stat().st_dev
        with os.scandir(root) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as exc:
        raise _unusable(request.path, context.host, exc) from exc
    tally = _Tally(device=device)
    sizes = []
    for done, entry in enumerate(entries):
        # Watchers see how far it is: by entries of the directory, since nobody knows beforehand what lies below them.
        context.progress(f"measuring {entry.name}", 100 * done / len(entries))
        before = tally.used_bytes
        tally.add(entry)
        sizes.append(Entry(name=entry.name, used_bytes=tally.used_bytes - before))
    sizes.sort(key=lambda entry: entry.used_bytes, reverse=True)
    return Usage(
        used_bytes=tally.used_bytes,
        files=tally.files,
        directories=tally.directories,
        unreadable=tally.unreadable,
        largest=tuple(sizes[: request.largest]),
    )


@dataclass
class _Tally:
    """What has been counted so far, on one device."""

    device: int
    used_bytes: int = 0
    files: int = 0
    directories: int = 0
    unreadable: int = 0
    _linked: set[int] = field(default_factory=set)

    def add(self, entry: os.DirEntry[str]) -> None:
        """Count an entry and all below it; files may come and go meanwhile, so what has vanished is not counted."""
        waiting = [entry]
        while waiting:
            current = waiting.pop()
            try:
                status = current.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError:
                self.unreadable += 1
                continue
            if status.st_dev != self.device:
                continue
            if not current.is_dir(follow_symlinks=False):
                self._add_file(status)
                continue
            self.directories += 1
            self.used_bytes += status.st_blocks * _BLOCK_BYTES
            try:
                with os.scandir(current) as listing:
                    waiting.extend(listing)
            except FileNotFoundError:
                continue
            except OSError:
                self.unreadable += 1

    def _add_file(self, status: os.stat_result) -> None:
        """Count a file, but a further link to one that is counted already."""
        if status.st_nlink > 1:
            if status.st_ino in self._linked:
                return
            self._linked.add(status.st_ino)
        self.files += 1
        self.used_bytes += status.st_blocks * _BLOCK_BYTES


def _unusable(path: str, host: str, exc: OSError) -> TaskFailed:
    return TaskFailed(
        f"{path!r} cannot be measured on {host} ({exc.strerror})",
        kind="unusable_path",
        remedy="name a directory that exists there and that the worker may read",
    )
