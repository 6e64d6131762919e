"""Places of this host that no container may have, whatever its owner grants, and whichever path leads there.

A directory is refused that is one of them, lies in one, or has one in it: links are followed, and what is mounted a
second time elsewhere counts as what it is. A link that is changed after this look leads the Engine where it is not
wanted, so what is asked of the Engine is the path without links, and it is looked at once more before the start.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from workers.host.containers import mounts
from workers.host.containers.engine import Engine

_UNIX = "unix://"
#: Of the system: what changes or tells how it works. `/` is one of them by itself, all the others lie in it.
_SYSTEM = ("/etc", "/proc", "/sys", "/dev")
#: Of Docker, wherever this Engine has its own.
DOCKERS = ("/var/run/docker.sock", "/var/run/docker", "/var/run/containerd", "/var/lib/docker", "/var/lib/containerd")
#: File systems that are the kernel's own voice, or its devices.
KERNELS = frozenset(
    {
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "mqueue",
        "proc",
        "pstore",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    }
)


class Unusable(Exception):
    """A path that no container may have; the text says why."""


class Places:
    """The forbidden places of one host. Asks the Engine where its own are at each question."""

    def __init__(self, engine: Engine, own: Iterable[Path] = ()) -> None:
        """`own` are Fleet's directories and files."""
        self._engine = engine
        self._own = tuple(str(path.absolute()) for path in own)

    def real(self, source: str) -> str:
        """Return a path of the host without links; raises `Unusable` where no container may have what is there."""
        root = self._engine_root()
        path = _without_links(source)
        table = mounts.mounts()
        if path == PurePosixPath("/"):
            raise Unusable("it is the whole host")
        for each in (*_SYSTEM, *DOCKERS, root, *self._socket(), *self._own):
            forbidden = PurePosixPath(os.path.realpath(each))
            if problem := _objection(path, forbidden, table):
                raise Unusable(problem if str(forbidden) == each else f"{problem} (that is {each})")
        for mount in table:
            if mount.kind in KERNELS and (mount.point.is_relative_to(path) or mount == mounts.holder(path, table)):
                raise Unusable(f"the kernel's {mount.kind} is mounted at {mount.point}")
        return str(path)

    def device(self, source: str) -> str:
        """Return a device's path without links; raises `Unusable` for what is none."""
        self._engine_root()
        path = _without_links(source)
        if path == PurePosixPath("/dev") or not path.is_relative_to("/dev"):
            raise Unusable("it is not a device in /dev")
        return str(path)

    def same(self, one: str, real: str) -> bool:
        """Say whether a path that the owner granted leads to this one, which has no links."""
        return os.path.realpath(one) == real

    def _engine_root(self) -> str:
        """Return the Engine's data directory; raises `Unusable` where this worker does not see the host's files."""
        root = str(self._engine.ask("GET", "/info")["DockerRootDir"])
        if not self._engine.url.startswith(_UNIX) or not Path(root).is_dir():
            raise Unusable("this worker does not see the host's files (it runs in a container, or elsewhere)")
        return root

    def _socket(self) -> tuple[str, ...]:
        return (self._engine.url.removeprefix(_UNIX),) if self._engine.url.startswith(_UNIX) else ()


def _without_links(source: str) -> PurePosixPath:
    try:
        return PurePosixPath(os.path.realpath(source, strict=True))
    except OSError as exc:
        raise Unusable(f"there is nothing to be found there ({exc.strerror})") from exc


def _objection(path: PurePosixPath, forbidden: PurePosixPath, table: tuple[mounts.Mount, ...]) -> str:
    """Say what is wrong with a path with regard to one place; empty where nothing is."""
    if path.is_relative_to(forbidden):
        return f"it is {forbidden}" if path == forbidden else f"it lies in {forbidden}"
    if forbidden.is_relative_to(path):
        return f"{forbidden} lies in it"
    there = mounts.place(forbidden, table)
    shown = (mounts.place(path, table), *(each.place for each in table if each.point.is_relative_to(path)))
    if any(each.exposes(there) or there.exposes(each) for each in shown):
        return f"{forbidden} is mounted there as well"
    if _same_socket(path, forbidden):
        return f"it is another name of {forbidden}"
    return ""


def _same_socket(path: PurePosixPath, forbidden: PurePosixPath) -> bool:
    """Say whether both are one file by two names (hard links)."""
    try:
        one, other = Path(path).stat(), Path(forbidden).stat()
    except OSError:
        return False
    return not stat.S_ISDIR(one.st_mode) and os.path.samestat(one, other)
