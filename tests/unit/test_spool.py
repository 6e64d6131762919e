"""The spool: who has an attempt in hand, whether it may have begun, and room for its ending."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import errors
from tests.services.availability import missing
from workers.host.capture import Written
from workers.host.children import Children
from workers.host.output import Output
from workers.host.spool import Ending, Spool

RUN = "h1:0198c0de-0000-7000-8000-000000000001"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.make(tmp_path / "spool", RUN, 1)


@pytest.fixture
def children(tmp_path: Path) -> Children:
    return Children(tmp_path / "spool", docker_url="", memory_bytes=2**29)


def test_an_attempt_that_was_prepared_runs_as_long_as_somebody_holds_its_lock(spool: Spool, children: Children) -> None:
    lock = spool.take_lock()
    handed_on = os.dup(lock)
    os.close(lock)
    assert [(found.began, found.running) for found in children.found()] == [(True, True)]
    with pytest.raises(errors.LocalFault, match="runs already"):
        Spool.make(spool.path.parent, RUN, 1)
    os.close(handed_on)
    assert [(found.began, found.running) for found in children.found()] == [(False, False)]
    assert Spool.make(spool.path.parent, RUN, 1).whose() == (RUN, 1)


def test_what_a_machine_that_went_down_left_may_have_begun(spool: Spool, children: Children) -> None:
    run = spool.path / "run"
    run.write_text(run.read_text().replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "another"))
    assert [(found.run_id, found.began, found.running) for found in children.found()] == [(RUN, True, False)]


def test_half_a_spool_is_of_nobody_and_goes(spool: Spool, children: Children) -> None:
    (spool.path / "run").write_text("{")
    assert children.found() == []
    assert not spool.path.exists()


def test_an_ending_reads_back_as_it_was_written(spool: Spool) -> None:
    ending = Ending("failed", 1.5, error=("impossible", "\u2028 no"), exit_status=0, output="last words\n")
    assert spool.ending() is None
    spool.end(ending)
    assert spool.ending() == ending


def test_what_is_kept_of_a_programs_output_lies_behind_its_ending(tmp_path: Path) -> None:
    spool = Spool.make(tmp_path / "spool", RUN, 1, keeps=100)
    assert spool.kept() == b""
    written = {"stdout": Written(9, "aa", 2, 2), "stderr": Written(0, "bb", 0, 0)}
    ending = Ending("exited", 1.5, exit_status=3, written=written)
    spool.end(ending, b"\n{}\xff")
    assert spool.ending() == ending
    assert spool.kept() == b"\n{}\xff"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        missing(f"no file system can be mounted ({mounted.stderr.strip()})")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path) -> None:
    free = os.statvfs(place)
    (place / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))


def test_on_a_full_disk_nothing_is_prepared_and_nothing_is_left(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(OSError, match="No space") as caught:
        Spool.make(small_disk / "spool", RUN, 1)
    assert caught.value.errno == errno.ENOSPC
    assert Spool.all(small_disk / "spool") == []


def test_on_a_disk_that_has_become_full_there_is_room_for_the_longest_ending(small_disk: Path) -> None:
    spool = Spool.make(small_disk / "spool", RUN, 1)
    output = Output(spool.path / "output")
    fill(small_disk)
    output.add(b"x" * 2_000_000 + "the last words ü".encode())
    longest = Ending("replied", 1.0, reply={"said": "x" * (256 * 1024 - 20)}, output="\x00" * 2000)
    spool.end(longest)
    assert spool.ending() == longest
    assert output.close().endswith("the last words ü")


def test_on_a_disk_that_has_become_full_there_is_room_for_what_is_kept_of_a_programs_output(small_disk: Path) -> None:
    spool = Spool.make(small_disk / "spool", RUN, 1, keeps=512 * 1024)
    fill(small_disk)
    spool.end(Ending("exited", 1.0, exit_status=0), b"x" * 512 * 1024)
    assert spool.kept() == b"x" * 512 * 1024
