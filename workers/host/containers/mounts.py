"""Mounts: where on which file system a path of this machine lies, as the kernel has it (proc_pid_mountinfo(5)).

Two paths may lead to the same files without any link, where something is mounted a second time: those have the same
place, a device and a path on it.
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_OCTAL = re.compile(r"\\([0-7]{3})")


class Place(NamedTuple):
    """Where something lies: major:minor of its device, and its path there."""

    device: str
    path: PurePosixPath

    def exposes(self, other: "Place") -> bool:
        """Say whether whoever has this has the other as well."""
        return self.device == other.device and other.path.is_relative_to(self.path)


class Mount(NamedTuple):
    point: PurePosixPath
    place: Place
    #: such as ext4, proc
    kind: str


def mounts(table: Path = Path("/proc/self/mountinfo")) -> tuple[Mount, ...]:
    """Return what is mounted, in the order in which it was."""
    found = []
    for line in table.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        _number, _parent, device, root, point, *_rest = before.split(" ")
        place = Place(device, PurePosixPath(_plain(root)))
        found.append(Mount(PurePosixPath(_plain(point)), place, after.split(" ")[0]))
    return tuple(found)


def holder(path: PurePosixPath, table: Iterable[Mount]) -> Mount:
    """Return the mount that a path without links lies on; the latest of those at one point hides the others."""
    lying = [mount for mount in table if path.is_relative_to(mount.point)]
    longest = max(len(mount.point.parts) for mount in lying)
    return [mount for mount in lying if len(mount.point.parts) == longest][-1]


def place(path: PurePosixPath, table: Iterable[Mount]) -> Place:
    """Return where a path without links lies."""
    mount = holder(path, table)
    return Place(mount.place.device, mount.place.path / path.relative_to(mount.point))


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
