"""The kernel's calls: what a process can say of itself."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workers.host import kernel


def test_both_ways_to_list_children_find_the_same() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        assert sleeping.pid in kernel.children()
        assert sleeping.pid in kernel.children_by_search()
        assert set(kernel.children()) <= set(kernel.children_by_search())
        assert os.getpid() not in kernel.children_by_search()
        sleeping.send_signal(signal.SIGKILL)


def test_a_limit_that_is_lower_already_stays() -> None:
    code = (
        "import resource as r; from workers.host import kernel;"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 200)); kernel.limit(r.RLIMIT_NOFILE, 500); kernel.limit(r.RLIMIT_CORE, 0);"
        "print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "(200, 200) (0, 0)\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) != (200, 200)


@pytest.mark.skipif(not kernel.opens_beneath(), reason="this kernel has no openat2")
def test_what_is_opened_beneath_a_directory_stays_there(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inside").symlink_to("../sub")
    (tmp_path / "out").symlink_to("../..")
    (tmp_path / "absolute").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    directory = os.open(tmp_path, os.O_PATH)
    opened = kernel.open_beneath(directory, "sub/inside/inside")
    assert os.path.samestat(os.fstat(opened), (tmp_path / "sub").stat())
    assert not os.get_inheritable(opened)
    os.close(opened)
    for path, number in {
        "..": errno.EXDEV,
        "out": errno.EXDEV,
        "absolute": errno.EXDEV,
        "/etc": errno.EXDEV,
        "loop": errno.ELOOP,
        "none": errno.ENOENT,
    }.items():
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what counts
            kernel.open_beneath(directory, path)
        assert caught.value.errno == number
    os.close(directory)


def test_a_kernel_without_the_call_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_OPENAT2", 1_000_000)
    assert not kernel.opens_beneath.__wrapped__()
