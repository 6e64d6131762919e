"""The kernel's calls: what a process can say of itself."""

import os
import resource
import signal
import subprocess
import sys

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
