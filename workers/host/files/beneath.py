"""Beneath: opening what lies below a granted directory, whatever others do to the names there meanwhile.

The directory itself is opened first, and everything else from that descriptor by openat2(2), which follows links as
far as they stay below. A link that is absolute is refused also where it leads back into the directory: where it leads
is a matter of the whole file system, which others may change under way. A kernel (or a filter of calls) without
openat2 gets one component after the other opened, and no link followed at all.

What is opened here cannot be read yet (O_PATH): nothing happens to a FIFO or a device by being looked at. Whoever
means to read asks `readable` for a second descriptor of the very same file.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from fleet import errors
from workers.host import kernel
from workers.host.files import faults


class Root:
    """A granted directory, opened."""

    def __init__(self, path: str, descriptor: int, *, follows_links: bool) -> None:
        self.path = path
        self._descriptor = descriptor
        self._follows_links = follows_links

    @contextmanager
    def opened(self, path: str, *, missing: str = "no_such_file") -> Iterator[int]:
        """Give a descriptor of what an absolute path leads to.

        Raises `errors.NotGranted` of kind `outside`, and `errors.TaskFailed` for what cannot be opened, of kind
        `missing` where there is nothing.
        """
        steps = below(path, self.path)
        with faults.told(path, missing=missing):
            descriptor = self._at_once(path, steps) if self._follows_links else self._step_by_step(path, steps)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _at_once(self, path: str, steps: tuple[str, ...]) -> int:
        try:
            return kernel.open_beneath(self._descriptor, "/".join(steps) or ".")
        except OSError as exc:
            if exc.errno in {errno.EXDEV, errno.ELOOP, errno.EAGAIN}:
                raise _outside(
                    path,
                    f"a link on the way leads out of {self.path}, or is absolute",
                    "links are followed where they are relative and stay below the granted directory",
                ) from exc
            raise

    def _step_by_step(self, path: str, steps: tuple[str, ...]) -> int:
        here = os.dup(self._descriptor)
        for step in steps:
            try:
                below_here = os.open(step, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
            finally:
                os.close(here)
            here = below_here
            if stat.S_ISLNK(os.fstat(here).st_mode):
                os.close(here)
                raise _outside(path, "there is a link on the way", "the kernel of this host is too old to follow it")
        return here


@contextmanager
def root(path: str, *, within: str = "", follows_links: bool | None = None) -> Iterator[Root]:
    """Open a granted directory; links on the way to it are followed, because whoever granted it wrote them.

    With `within`, somebody else has granted no more than that directory: from there on links are followed as far as
    they stay below it. `follows_links` is whether the kernel can be asked to stay below it; None to find out.
    """
    if follows_links is None:
        follows_links = kernel.opens_beneath()
    if within:
        with (
            root(within, follows_links=follows_links) as outer,
            outer.opened(path, missing="no_such_directory") as found,
        ):
            yield Root(str(PurePosixPath(path)), found, follows_links=follows_links)
        return
    try:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError as exc:
        raise errors.TaskFailed(
            f"the granted directory {path} cannot be opened on this host ({exc.strerror})",
            kind="no_such_directory",
            remedy="make it, or mend the grant",
        ) from exc
    try:
        yield Root(str(PurePosixPath(path)), descriptor, follows_links=follows_links)
    finally:
        os.close(descriptor)


def below(path: str, directory: str) -> tuple[str, ...]:
    """Return the steps from a directory to a path, by their words; raises `errors.NotGranted` where it lies elsewhere.

    No step is ever `..`: openat2 would refuse to leave by it, and the other way of opening would not.
    """
    whole, start = PurePosixPath(path), PurePosixPath(directory)
    if ".." in whole.parts or not whole.is_relative_to(start):
        raise _outside(path, f"it does not lie below {directory}", "ask for a path below the granted directory")
    return whole.relative_to(start).parts


def readable(descriptor: int, *, directory: bool = False) -> int:
    """Return a descriptor to read from, of the very file or directory that is open already.

    O_NONBLOCK, so that nothing waits here should the file be on something that lets it.
    """
    flags = os.O_DIRECTORY if directory else os.O_NONBLOCK | os.O_NOCTTY
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | flags)


def _outside(path: str, problem: str, remedy: str) -> errors.NotGranted:
    return errors.NotGranted(f"{path}: {problem}", kind="outside", remedy=remedy)
