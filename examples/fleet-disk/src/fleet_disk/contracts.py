"""What may be asked: the contracts of `disk.free` and `disk.usage`.

Everybody who pushes imports this module, so it stays light; how the tasks are carried out is in `fleet_disk.measure`,
which hosts alone import.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from fleet.contracts import Contract, Reply, Request, Risk

AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=4096)]


class FreeRequest(Request):
    path: AbsolutePath = Field("/", description="any path of the file system in question")


class Free(Reply):
    """The file system that holds the path."""

    total_bytes: int
    used_bytes: int
    #: what an ordinary user may still write; less than total - used, as file systems keep a reserve
    free_bytes: int


class UsageRequest(Request):
    path: AbsolutePath = Field(description="directory to measure")
    largest: int = Field(5, ge=0, le=100, description="how many of its entries to name, largest first")


class Entry(Reply):
    name: str
    used_bytes: int


class Usage(Reply):
    """What takes room below a directory, as `du -x` counts: blocks, hard links once, one file system, no symlinks."""

    used_bytes: int
    files: int
    directories: int
    #: entries that could not be read, and are missing from the sum
    unreadable: int
    largest: tuple[Entry, ...]


FREE = Contract(
    name="disk.free",
    summary="Say how much room a file system of the host has.",
    request=FreeRequest,
    reply=Free,
    risk=Risk.READS,
    idempotent=True,
    perform="fleet_disk.measure:free",
)
USAGE = Contract(
    name="disk.usage",
    summary="Add up what lies below a directory of the host.",
    request=UsageRequest,
    reply=Usage,
    risk=Risk.READS,
    idempotent=True,
    perform="fleet_disk.measure:usage",
)
ALL = (FREE, USAGE)
