"""Files of a host on a real file system: what is read, listed and written, and with which attributes."""

import base64
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet import errors
from fleet.contracts.files import LARGEST_GET, MOST_ENTRIES
from tests.services.granted_files import Host, refused
from workers.host import kernel
from workers.host.replies import checked_reply

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away and makes devices: root's to do")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    point = tmp_path / "small"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(point)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def left_behind(host: Host) -> list[Path]:
    return [*host.root.rglob(".fleet-put-*"), *host.notes.glob("*")]


def test_a_file_is_read_with_what_is_to_be_known_of_it(host: Host) -> None:
    path = host.root / "app.conf"
    path.write_bytes(b"a\0\xff")
    path.chmod(0o640)
    os.utime(path, (0, 1_700_000_000))
    found = host.get(path)
    assert base64.b64decode(found.content) == b"a\0\xff"
    assert (found.size, found.mode, found.sha256) == (3, "0640", hashlib.sha256(b"a\0\xff").hexdigest())
    assert found.modified == datetime.fromtimestamp(1_700_000_000, UTC)
    assert found.owner == path.owner()
    assert found.group == path.group()


def test_an_empty_file_is_read_and_written(host: Host) -> None:
    put = host.put(host.root / "empty", b"")
    assert (put.size, host.get(host.root / "empty").content) == (0, "")


def test_a_new_file_has_the_usual_permissions_and_says_so(host: Host) -> None:
    put = host.put(host.root / "new", b"text")
    assert (host.root / "new").read_bytes() == b"text"
    assert stat.S_IMODE((host.root / "new").stat().st_mode) == 0o644
    assert (put.size, put.mode, put.replaced_sha256) == (4, "0644", "")
    assert put.sha256 == hashlib.sha256(b"text").hexdigest()
    assert not left_behind(host)


def test_a_file_that_is_replaced_hands_on_its_permissions(host: Host) -> None:
    path = host.root / "kept"
    path.write_bytes(b"old")
    path.chmod(0o604)
    put = host.put(path)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o604)
    assert put.replaced_sha256 == hashlib.sha256(b"old").hexdigest()
    host.put(path, mode="0750")
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


@as_root
def test_owner_and_group_are_kept_or_given(host: Host) -> None:
    path = host.root / "kept"
    path.write_bytes(b"old")
    os.chown(path, 12_345, 23_456)
    put = host.put(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 23_456)
    assert (put.owner, put.group) == ("12345", "23456")
    put = host.put(path, owner="nobody", group="0")
    assert (put.owner, put.group, path.stat().st_gid) == ("nobody", "root", 0)
    host.put(host.root / "other", owner="4711")
    assert (host.root / "other").stat().st_uid == 4711


def test_an_owner_that_the_host_does_not_know_changes_nothing(host: Host) -> None:
    said = refused("invalid_arguments", lambda: host.put(host.root / "file", owner="nobody_at_all"))
    assert said.startswith("owner: this host has no user named 'nobody_at_all'")
    assert refused("invalid_arguments", lambda: host.put(host.root / "file", group="none_such")).startswith("group: ")
    assert not (host.root / "file").exists()


@as_root
def test_no_file_gets_or_keeps_the_rights_of_its_owner_for_whoever_runs_it(host: Host) -> None:
    path = host.root / "program"
    path.write_bytes(b"old")
    path.chmod(0o6755)
    assert host.get(path).mode == "6755"
    assert host.put(path).mode == "0755"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert host.put(path, mode="0755", owner="nobody").mode == "0755"


def test_a_second_name_keeps_the_old_content(host: Host) -> None:
    path, other = host.root / "file", host.outside / "other"
    path.write_bytes(b"old")
    os.link(path, other)
    host.put(path)
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")


@as_root
def test_access_lists_and_attributes_are_handed_on_and_capabilities_are_not(host: Host) -> None:
    path = host.root / "file"
    path.write_bytes(b"old")
    # version 2; user, user 4711, group, mask, others: rw-, rw-, r--, rw-, ---
    acl = bytes.fromhex("0200000001000600ffffffff020006006712000004000400ffffffff10000600ffffffff20000000ffffffff")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
        os.setxattr(path, "user.note", b"kept")
        os.setxattr(path, "security.capability", capability)
    except OSError as exc:
        pytest.skip(f"this file system keeps none ({exc})")
    host.put(path)
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert os.getxattr(path, "user.note") == b"kept"
    assert "security.capability" not in os.listxattr(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    host.put(path, mode="0600")
    assert os.getxattr(path, "system.posix_acl_access")[28:36] == bytes.fromhex("10000000ffffffff")


@as_root
def test_a_directorys_default_does_not_open_a_file_that_is_replaced(host: Host) -> None:
    path = host.root / "file"
    path.write_bytes(b"old")
    path.chmod(0o660)
    default = bytes.fromhex("0200000001000700ffffffff020007006712000004000700ffffffff10000700ffffffff20000700ffffffff")
    try:
        os.setxattr(host.root, "system.posix_acl_default", default)
    except OSError as exc:
        pytest.skip(f"this file system keeps none ({exc})")
    host.put(path)
    assert "system.posix_acl_access" not in os.listxattr(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_what_is_no_regular_file_is_never_read_or_replaced(host: Host) -> None:
    os.mkfifo(host.root / "fifo")
    (host.root / "directory").mkdir()
    (host.root / "file").write_bytes(b"old")
    (host.root / "link").symlink_to("file")
    (host.root / "lost").symlink_to("nowhere")
    directory = os.open(host.root, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{directory}/socket")  # a short name: 108 bytes are the most
        os.close(directory)
        for name, noun in (("fifo", "FIFO"), ("directory", "directory"), ("socket", "socket")):
            assert f"is a {noun}" in refused("not_a_file", lambda name=name: host.get(host.root / name))
            assert f"is a {noun}" in refused("not_a_file", lambda name=name: host.put(host.root / name))
    assert base64.b64decode(host.get(host.root / "link").content) == b"old"
    for name in ("link", "lost"):
        assert "is a link" in refused("not_a_file", lambda name=name: host.put(host.root / name))
    refused("no_such_file", lambda: host.get(host.root / "lost"))
    refused("not_a_file", lambda: host.put(host.root))
    assert "only regular files" in refused("not_a_file", lambda: host.get(host.root))
    assert (host.root / "file").read_bytes() == b"old"


@as_root
def test_devices_are_not_even_opened(host: Host) -> None:
    """Opening either would say so: there is no driver of that number."""
    for name, kind in (("block", stat.S_IFBLK), ("character", stat.S_IFCHR)):
        os.mknod(host.root / name, 0o666 | kind, os.makedev(250, 250))
        assert "is a device" in refused("not_a_file", lambda name=name: host.get(host.root / name))
        assert "is a device" in refused("not_a_file", lambda name=name: host.put(host.root / name))


def test_what_is_too_large_is_said_with_both_sizes(host: Host) -> None:
    path = host.root / "large"
    path.write_bytes(b"x" * 1001)
    assert "has 1,001 bytes; 1,000 are the most" in refused("too_large", lambda: host.get(path, most_bytes=1000))
    assert host.get(path, most_bytes=1001).size == 1001
    assert "1,000 are the most" in refused("too_large", lambda: host.put(path, b"y" * 1001, most_bytes=1000))
    assert path.read_bytes() == b"x" * 1001
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole: nothing of it is read
    assert f"{LARGEST_GET:,} are the most" in refused("too_large", lambda: host.get(path, most_bytes=2**50))


def test_a_file_that_grows_while_it_is_read_is_not_read_for_ever(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = host.root / "log"
    path.write_bytes(b"")
    whole = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        status = whole(descriptor)  # the size is looked at, and then there is more
        with path.open("ab") as file:
            file.write(b"x" * 600)
        return status

    monkeypatch.setattr(os, "fstat", grow)
    assert "grows; 1,000 are the most" in refused(
        "too_large", lambda: [host.get(path, most_bytes=1000) for _ in range(3)]
    )


def test_where_there_is_no_directory_none_is_made(host: Host) -> None:
    refused("no_such_directory", lambda: host.put(host.root / "no" / "file"))
    (host.root / "file").write_bytes(b"")
    refused("not_a_directory", lambda: host.put(host.root / "file" / "below"))
    refused("not_a_directory", lambda: host.list(host.root / "file"))
    refused("no_such_file", lambda: host.list(host.root / "no"))
    refused("no_such_file", lambda: host.get(host.root / "no"))
    gone = host.root.parent / "gone"
    assert "the granted directory" in refused("no_such_directory", lambda: host.get(gone / "file", root=gone))
    assert not (host.root / "no").exists()


@as_root
def test_a_full_disk_leaves_the_old_file(host: Host, small: Path) -> None:
    path = small / "file"
    path.write_bytes(b"o" * 30_000)
    assert "nothing was changed" in refused("no_space", lambda: host.put(path, b"n" * 50_000, root=small))
    assert path.read_bytes() == b"o" * 30_000
    assert [each.name for each in small.iterdir()] == ["file"]
    assert not left_behind(host)
    assert host.put(path, b"n" * 30_000, root=small).size == 30_000


@as_root
def test_a_read_only_file_system_is_said_to_be_one(host: Host, small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    refused("read_only", lambda: host.put(small / "file", root=small))


def test_a_run_that_is_over_replaces_nothing(host: Host) -> None:
    (host.root / "file").write_bytes(b"old")
    with pytest.raises(errors.TaskCancelled):
        host.put(host.root / "file", over=lambda: True)
    assert (host.root / "file").read_bytes() == b"old"
    assert not left_behind(host)


def test_a_directory_is_listed_by_name_and_nothing_in_it_followed(host: Host) -> None:
    (host.root / "b").write_bytes(b"12345")
    (host.root / "a").mkdir(mode=0o750)
    os.mkfifo(host.root / "c")
    (host.root / "d").symlink_to("/etc/passwd")
    found = host.list(host.root)
    assert [(each.name, each.kind, each.target) for each in found.entries] == [
        ("a", "directory", ""),
        ("b", "file", ""),
        ("c", "other", ""),
        ("d", "link", "/etc/passwd"),
    ]
    assert (found.entries[0].mode, found.entries[1].size, found.truncated) == ("0750", 5, False)
    assert not host.list(host.root / "a").entries


def test_names_that_are_no_text_or_move_a_terminal_are_listed(host: Host) -> None:
    for name in (b"caf\xe9", b"new\nline", b"\x1b[2J", "\u202egnp".encode(), b"\xff\xfe"):
        (host.root / os.fsdecode(name)).write_bytes(b"")
    (host.root / "link").symlink_to(os.fsdecode(b"\xff"))
    found = host.list(host.root)
    assert {each.name for each in found.entries} == {
        "caf\\xe9",
        "new\nline",
        "\x1b[2J",
        "\u202egnp",
        "\\xff\\xfe",
        "link",
    }
    assert next(each.target for each in found.entries if each.name == "link") == "\\xff"
    assert len(found.model_dump_json()) > 100


def test_a_directory_of_thousands_is_cut_to_what_a_reply_holds(host: Host) -> None:
    from fleet.contracts.files import LIST

    short, long = host.root / "short", host.root / "long"
    for directory, name in ((short, "{:05}"), (long, "{:05}" + "ä" * 120)):
        directory.mkdir()
        for number in range(MOST_ENTRIES + 1):
            (directory / name.format(number)).touch()
    for directory in (short, long):
        found = host.list(directory)
        assert found.truncated
        assert 0 < len(found.entries) <= MOST_ENTRIES
        assert [each.name[:5] for each in found.entries] == [f"{n:05}" for n in range(len(found.entries))]
        assert len(str(checked_reply(LIST, found))) < 2 * LIST.largest_reply


def test_times_beyond_the_calendar_are_shown_as_its_end(host: Host, tmp_path: Path) -> None:
    path = host.root / "file"
    path.write_bytes(b"")
    os.utime(path, (0, 2**40))
    assert host.get(path).modified.year in {9999, 2446, 2486}


@as_root
def test_a_worker_that_is_not_root_changes_nothing_that_it_cannot_keep() -> None:
    with tempfile.TemporaryDirectory() as directory:  # that others may enter, unlike those of pytest
        Path(directory).chmod(0o711)
        _be_nobody(Host(Path(directory)))


def _be_nobody(host: Host) -> None:
    for name, owner in (("theirs", 0), ("own", 65_534)):
        (host.root / name).write_bytes(b"old")
        os.chown(host.root / name, owner, owner)
    (host.root / "secret").write_bytes(b"old")
    (host.root / "secret").chmod(0o600)
    for directory in (host.root, host.state):
        os.chown(directory, 65_534, 65_534)
    script = """
import ctypes, os, sys
from pathlib import Path
from tests.services.granted_files import Host, refused
host = Host(Path(sys.argv[1]))
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, 1)  # as a process that was that user's from the beginning: it sees its own /proc/self
refused("permission_denied", lambda: host.put(host.root / "theirs"))
refused("permission_denied", lambda: host.put(host.root / "secret"))
refused("permission_denied", lambda: host.put(host.root / "own", owner="root"))
refused("permission_denied", lambda: host.get(host.root / "secret"))
assert host.put(host.root / "own").owner == "nobody"
assert host.put(host.root / "new").owner == "nobody"
"""
    subprocess.run([sys.executable, "-c", script, str(host.root.parent)], check=True, env={"PYTHONPATH": "."})
    assert [(host.root / name).read_bytes() for name in ("theirs", "secret", "own")] == [b"old", b"old", b"new"]
    assert not left_behind(host)


@pytest.mark.parametrize("follows_links", [True, False])
def test_a_root_that_leads_out_of_what_the_hosts_owner_grants_is_none(tmp_path: Path, *, follows_links: bool) -> None:
    if follows_links and not kernel.opens_beneath():
        pytest.skip("this kernel has no openat2")
    host = Host(tmp_path, follows_links=follows_links)
    (host.outside / "shadow").write_text("secret")
    (host.root / "current").symlink_to("../outside")
    (host.root / "real").mkdir()
    (host.root / "real" / "file").write_text("ours")
    root = host.root / "current"
    assert host.get(root / "shadow", root=root).size == 6, "who grants this directory alone has written the link"
    within = str(host.root)
    message = refused("outside", lambda: host.get(root / "shadow", root=root, within=within))
    assert "secret" not in message
    assert host.get(host.root / "real" / "file", root=host.root / "real", within=within).size == 4
    refused("no_such_directory", lambda: host.get(host.root / "no" / "x", root=host.root / "no", within=within))
