"""Listing: the entries of a directory, as many as one reply holds, by name.

Entries are looked at and not followed. A name that is no UTF-8 is shown with escapes, and no request can name it.
"""

import heapq
import json
import os
import stat
from collections.abc import Iterator
from typing import Literal

from fleet.contracts.files import LIST, MOST_ENTRIES, FileEntry, Files
from workers.host.files import attributes, beneath, faults, real
from workers.host.files.never import Never
from workers.host.files.owners import Owners
from workers.host.files.real import RequireReal

#: Of a reply, for what is around the entries.
_AROUND_BYTES = 256


def entries(root: beneath.Root, path: str, *, never: Never, require_real: RequireReal) -> Files:
    """List a directory."""
    with root.opened(path) as descriptor:
        require_real(real.path(descriptor))
        never.check(descriptor, path)
        with faults.told(path):
            directory = beneath.readable(descriptor, directory=True)
            try:
                return _listed(directory)
            finally:
                os.close(directory)


def _listed(directory: int) -> Files:
    owners = Owners()
    found: list[FileEntry] = []
    room = LIST.largest_reply - _AROUND_BYTES
    with os.scandir(directory) as scanned:  # never all of them in memory: a directory may have millions
        names = heapq.nsmallest(MOST_ENTRIES + 1, (each.name for each in scanned))
    for entry in _looked_at(directory, names[:MOST_ENTRIES], owners):
        room -= len(json.dumps(entry.model_dump(mode="json"))) + 2
        if room < 0:
            return Files(entries=tuple(found), truncated=True)
        found.append(entry)
    return Files(entries=tuple(found), truncated=len(names) > MOST_ENTRIES)


def _looked_at(directory: int, names: list[str], owners: Owners) -> Iterator[FileEntry]:
    for name in names:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else ""
        except FileNotFoundError:  # it has gone meanwhile
            continue
        yield FileEntry(
            name=attributes.text(name),
            kind=_kind(status.st_mode),
            size=status.st_size,
            mode=attributes.mode(status),
            owner=owners.user(status.st_uid),
            group=owners.group(status.st_gid),
            modified=attributes.modified(status),
            target=attributes.text(target),
        )


def _kind(mode: int) -> Literal["file", "directory", "link", "other"]:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"
