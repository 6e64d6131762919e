"""Reading: the content of a regular file, whole, or not at all where it is larger than may be.

What is no regular file is never opened for reading: a FIFO would wait for its writer, a device may do anything.
"""

import base64
import hashlib
import os
import stat

from fleet.contracts.files import LARGEST_GET, FileContent
from workers.host.files import attributes, beneath, faults, real
from workers.host.files.never import Never
from workers.host.files.owners import Owners
from workers.host.files.real import RequireReal


def content(root: beneath.Root, path: str, *, never: Never, require_real: RequireReal, most_bytes: int) -> FileContent:
    """Read a file of at most so many bytes, and of `LARGEST_GET`."""
    most = min(LARGEST_GET, most_bytes)
    with root.opened(path) as descriptor:
        require_real(real.path(descriptor))
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise faults.not_a_file(path, before.st_mode)
        never.check(descriptor, path)
        if before.st_size > most:
            raise faults.too_large(path, before.st_size, most)
        with faults.told(path):
            data, status = _read(descriptor, most + 1)
    if len(data) > most:
        raise faults.too_large(path, len(data), most, grew=True)
    owners = Owners()
    return FileContent(
        content=base64.b64encode(data).decode(),
        size=len(data),
        mode=attributes.mode(status),
        owner=owners.user(status.st_uid),
        group=owners.group(status.st_gid),
        modified=attributes.modified(status),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _read(descriptor: int, most: int) -> tuple[bytes, os.stat_result]:
    with open(beneath.readable(descriptor), "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
        data = bytearray()
        while len(data) < most and (part := file.read(most - len(data))):
            data += part
        return bytes(data), os.fstat(file.fileno())
