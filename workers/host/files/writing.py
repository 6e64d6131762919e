"""Writing: a regular file, made or replaced as a whole, or left as it was.

The new content is on the disk under another name in the same directory, with all its attributes, before it takes the
target's name in one step: whoever looks sees the old file or the new one, also when the worker or the machine goes down
in the middle. It is a new file, so that a second name of the old one (a hard link) keeps the old content, and whoever
has it open goes on with that.

A file that is replaced hands on its permissions without the setuid, setgid and sticky bits, its owner and group, its
access control list, its SELinux label and its `user.` attributes. Its capabilities and the sums of integrity checks
(`security.capability`, `security.ima`, `security.evm`) are about the old content, and go with it.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from fleet import errors
from fleet.contracts.files import FilePut, PutFile
from workers.host.files import attributes, beneath, faults, real
from workers.host.files.leftovers import Leftovers
from workers.host.files.never import Never
from workers.host.files.owners import Owners, group_number, user_number
from workers.host.files.real import RequireReal

_NEW_MODE = 0o644
_ACL = "system.posix_acl_access"
_PERMISSIONS = 0o777
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class _Old:
    """What has the target's name."""

    status: os.stat_result
    sha256: str
    extended: dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What the new file shall be like; None for the worker's own."""

    mode: int
    owner: int | None
    group: int | None


class Writer:
    """Writes files of one host."""

    def __init__(self, *, never: Never, leftovers: Leftovers) -> None:
        self._never = never
        self._leftovers = leftovers

    def put(
        self,
        root: beneath.Root,
        request: PutFile,
        content: bytes,
        *,
        require_real: RequireReal,
        run_id: str,
        over: Callable[[], bool],
    ) -> FilePut:
        """Make or replace a file. Where the run is `over` before the file has its name, nothing is changed."""
        path, steps = request.path, beneath.below(request.path, root.path)
        if not steps:
            raise faults.not_a_file(path, stat.S_IFDIR)
        parent = str(PurePosixPath(path).parent)
        with root.opened(parent, missing="no_such_directory") as found, _reopened(found, path) as directory:
            require_real(str(PurePosixPath(real.path(directory)) / steps[-1]))  # no link is written through
            self._never.check_name(directory, steps[-1], path)
            old = self._look(directory, steps[-1], path, over)
            wanted = _wanted(request, old)
            with (
                self._leftovers.beside(directory, run_id=run_id, root=root.path, path=parent) as name,
                faults.told(path),
            ):
                status = _write(directory, name, content, wanted, old)
                if over():
                    raise errors.TaskCancelled(f"{path}: the run was over before the file was replaced")
                os.rename(name, steps[-1], src_dir_fd=directory, dst_dir_fd=directory)
            _sync(directory, path)
        owners = Owners()
        return FilePut(
            size=len(content),
            mode=attributes.mode(status),
            owner=owners.user(status.st_uid),
            group=owners.group(status.st_gid),
            sha256=hashlib.sha256(content).hexdigest(),
            replaced_sha256=old.sha256 if old else "",
        )

    def _look(self, directory: int, name: str, path: str, over: Callable[[], bool]) -> _Old | None:
        """Return what has the name now; None for nothing. Raises for what is no regular file."""
        with faults.told(path):
            try:
                found = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
            except FileNotFoundError:
                return None
            try:
                status = os.fstat(found)
                if not stat.S_ISREG(status.st_mode):
                    raise faults.not_a_file(path, status.st_mode)
                self._never.check(found, path)
                with open(beneath.readable(found), "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
                    return _Old(
                        status=status,
                        sha256=_digest(file.fileno(), status.st_size, over),
                        extended=dict(_handed_on(file.fileno())),
                    )
            finally:
                os.close(found)


@contextmanager
def _reopened(descriptor: int, path: str) -> Iterator[int]:
    """Give a descriptor that can be synced."""
    with faults.told(path):
        directory = beneath.readable(descriptor, directory=True)
    try:
        yield directory
    finally:
        os.close(directory)


def _sync(directory: int, path: str) -> None:
    try:
        os.fsync(directory)
    except OSError as exc:
        raise errors.TaskFailed(
            f"{path} was replaced, and whether it stays so when the power fails is not known ({exc.strerror})",
            kind="not_synced",
            remedy="look at the host's disk",
        ) from exc


def _wanted(request: PutFile, old: _Old | None) -> _Wanted:
    mode = old.status.st_mode & _PERMISSIONS if old else _NEW_MODE
    owner, group = (old.status.st_uid, old.status.st_gid) if old else (None, None)
    return _Wanted(
        mode=int(request.mode, 8) if request.mode else mode,
        owner=user_number(request.owner) if request.owner else owner,
        group=group_number(request.group) if request.group else group,
    )


def _write(directory: int, name: str, content: bytes, wanted: _Wanted, old: _Old | None) -> os.stat_result:
    """Write a file that nobody but the worker's user can open until it is whole, and have it on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:  # noqa: PTH123
        descriptor = file.fileno()
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        now = os.fstat(descriptor)
        if (wanted.owner, wanted.group) != (None, None) and (wanted.owner, wanted.group) != (now.st_uid, now.st_gid):
            os.fchown(
                descriptor, -1 if wanted.owner is None else wanted.owner, -1 if wanted.group is None else wanted.group
            )
        if old is not None:
            _take_over(descriptor, old.extended)
        os.fchmod(descriptor, wanted.mode)  # after the list, of which it sets the mask
        os.fsync(descriptor)
        return os.fstat(descriptor)


def _take_over(descriptor: int, extended: dict[str, bytes]) -> None:
    for name, value in extended.items():
        os.setxattr(descriptor, name, value)
    if _ACL not in extended:
        try:
            os.removexattr(descriptor, _ACL)  # what the directory's default for new files gave it
        except OSError as exc:
            if exc.errno not in {errno.ENODATA, errno.ENOTSUP}:
                raise


def _handed_on(descriptor: int) -> Iterator[tuple[str, bytes]]:
    try:
        names = os.listxattr(descriptor)
    except OSError:  # a file system without them
        return
    for name in names:
        if name in {_ACL, "security.selinux"} or name.startswith("user."):
            yield name, os.getxattr(descriptor, name)


def _digest(descriptor: int, size: int, over: Callable[[], bool]) -> str:
    """Return the SHA-256 of so many bytes: what is appended meanwhile is not waited for."""
    found = hashlib.sha256()
    while size > 0 and not over() and (piece := os.read(descriptor, min(size, _PIECE_BYTES))):
        found.update(piece)
        size -= len(piece)
    return found.hexdigest()
