"""Places on file systems, as the kernel's table of mounts has them."""

from pathlib import Path, PurePosixPath

import pytest

from workers.host.containers import mounts
from workers.host.containers.mounts import Mount, Place

TABLE = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 254:0 /etc /srv/a\040b rw,relatime shared:2 master:1 - ext4 /dev/vda rw
41 27 254:1 /@home /home rw - btrfs /dev/vdb rw
42 27 0:30 / /home/shared rw - tmpfs tmpfs rw
43 27 0:31 / /home/shared rw - nfs4 there:/x rw
"""


@pytest.fixture
def table(tmp_path: Path) -> tuple[Mount, ...]:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return mounts.mounts(path)


def test_a_path_lies_on_the_mount_that_is_nearest_and_latest(table: tuple[Mount, ...]) -> None:
    assert mounts.holder(PurePosixPath("/home/shared/x"), table).kind == "nfs4"
    assert mounts.holder(PurePosixPath("/home/sharedx"), table).kind == "btrfs"
    assert mounts.holder(PurePosixPath("/etc"), table).kind == "ext4"


def test_what_is_mounted_a_second_time_lies_where_it_lay_before(table: tuple[Mount, ...]) -> None:
    second, first = (mounts.place(PurePosixPath(path), table) for path in ("/srv/a b/ssl", "/etc/ssl"))
    assert second == first == Place("254:0", PurePosixPath("/etc/ssl"))
    assert mounts.place(PurePosixPath("/home/ann"), table) == Place("254:1", PurePosixPath("/@home/ann"))


def test_a_place_exposes_itself_and_what_lies_below(table: tuple[Mount, ...]) -> None:
    etc = mounts.place(PurePosixPath("/etc"), table)
    assert mounts.place(PurePosixPath("/srv/a b"), table).exposes(etc)
    assert mounts.place(PurePosixPath("/"), table).exposes(etc)
    assert not mounts.place(PurePosixPath("/etc2"), table).exposes(etc)
    assert not mounts.place(PurePosixPath("/home"), table).exposes(etc)


def test_this_machine_has_a_root() -> None:
    assert mounts.holder(PurePosixPath("/"), mounts.mounts()).point == PurePosixPath("/")
