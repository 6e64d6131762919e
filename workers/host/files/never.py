"""Never: the places of this host whose files nobody reads or writes through Fleet, whatever is granted.

These are Fleet's own (its state, keys, credential, policy and secrets), Docker's (its socket, and the directories that
it usually has), and what the kernel shows as files. What has been opened is asked where it really lies, as a device and
a path on it, so that neither a link nor a second mount is a way around; a second name (a hard link) of a file of
Fleet's own is recognized by looking for it there.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from fleet import errors
from workers.host.containers import mounts
from workers.host.containers.places import KERNELS


class Never:
    """The places of one host that are never granted."""

    def __init__(self, own: Iterable[Path], *, others: Iterable[Path] = ()) -> None:
        """Both are directories and files, which need not be there yet; second names are looked for in `own` alone.

        Docker's directories have millions of files, each image's in several places.
        """
        self._own = tuple(str(path.absolute()) for path in own)
        self._places = (*self._own, *(str(path.absolute()) for path in others))

    def check(self, descriptor: int, asked: str) -> None:
        """Raise `errors.NotGranted` of kind `never_granted` where what is open is, or lies in, one of the places."""
        self._check_place(_place(descriptor), asked)
        found = os.fstat(descriptor)
        several = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
        if several and any((each.st_dev, each.st_ino) == (found.st_dev, found.st_ino) for each in self._files()):
            raise _refused(asked, "it is another name of one of Fleet's own files")

    def check_name(self, directory: int, name: str, asked: str) -> None:
        """Do the same for a name in an open directory, whether it is there or not: it is about to be made."""
        self._check_place(_place(directory) / name, asked)

    def _check_place(self, path: PurePosixPath, asked: str) -> None:
        if not path.is_absolute():
            raise _refused(asked, "where it lies on this host cannot be said")
        table = mounts.mounts()
        if (kind := mounts.holder(path, table).kind) in KERNELS:
            raise _refused(asked, f"it is a file of the kernel's ({kind})")
        there = mounts.place(path, table)
        for each in self._places:
            if mounts.place(PurePosixPath(os.path.realpath(each)), table).exposes(there):
                raise _refused(asked, "it lies in a place of Fleet's own, or of Docker's")

    def _files(self) -> Iterator[os.stat_result]:
        """Look at every file in those places. Only what has several names makes anybody ask."""
        for each in self._own:
            for path in (Path(each), *(Path(at) / name for at, _, names in os.walk(each) for name in names)):
                try:
                    yield path.stat()
                except OSError:
                    continue  # it has gone, or never was


def _place(descriptor: int) -> PurePosixPath:
    """Return the path of what is open, without links, as the kernel has it."""
    return PurePosixPath(Path(f"/proc/self/fd/{descriptor}").readlink())


def _refused(asked: str, problem: str) -> errors.NotGranted:
    return errors.NotGranted(f"{asked}: {problem}", kind="never_granted", remedy="no policy grants that")
