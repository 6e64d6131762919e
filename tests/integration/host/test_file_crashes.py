"""A put that is cut short at any step leaves the old file or the new one, and nothing once the worker is back.

A child process is killed before and after each call of the operating system that the put makes.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.granted_files import Host

#: Forks a child for each step; prints, for each, whether it was killed and what the file has then. The parent has one
#: thread, and everything imported.
SCRIPT = """
import io, os, signal, sys
from pathlib import Path
from tests.services.granted_files import Host

base, before = Path(sys.argv[1]), sys.argv[2]
host = Host(base)
target = host.root / "file"
host.put(host.root / "warm", b"up")  # imports, caches
for step in range(10_000):
    target.unlink(missing_ok=True)
    if before:
        target.write_text(before * 50_000)
    child = os.fork()
    if child == 0:
        seen = 0
        def count(frame, event, function):
            global seen
            if event not in ("c_call", "c_return"):
                return
            if function.__module__ == "posix" or isinstance(function.__self__, io.IOBase):
                seen += 1
                if seen > step:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(count)
        host.put(target, b"n" * 100_000)
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    try:
        has = target.read_text()
        has = has[0] + str(len(has)) if len(set(has)) == 1 else "torn"
    except FileNotFoundError:
        has = "nothing"
    left = len(list(host.root.glob(".fleet-put-*")))
    host.tasks.take_up()
    after = len(list(host.root.glob(".fleet-put-*"))) + len(list(host.notes.glob("*")))
    print(os.WIFSIGNALED(status), has, left, after)
    if not os.WIFSIGNALED(status):
        break
"""


@pytest.mark.parametrize("before", ["o", ""], ids=["replacing", "making"])
def test_a_put_that_is_killed_at_any_step_is_whole_or_not_at_all(tmp_path: Path, before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), before],
        check=True,
        capture_output=True,
        text=True,
        timeout=250,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": "."},
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    old = "o50000" if before else "nothing"
    assert {has for _, has, _, _ in lines} == {old, "n100000"}
    states = [has for _, has, _, _ in lines]
    assert (states[0], states[-1]) == (old, "n100000")
    # Old, and from some step on new: which one differs from put to put by the few calls that wait for something.
    last_old, first_new = len(states) - states[::-1].index(old), states.index("n100000")
    assert last_old - first_new < 10
    assert states.count("n100000") > 3  # killed after it had its name, too
    assert any(left == "1" for _, _, left, _ in lines)  # something was left …
    assert {after for _, _, _, after in lines} == {"0"}  # … and is gone when the next worker has begun
    assert lines[-1][0] == "False"
    assert len(lines) > 30


def test_what_is_left_is_kept_in_mind_until_it_can_be_removed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    leftover = host.root / "sub" / ".fleet-put-x"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    host.notes.mkdir()
    note = host.notes / leftover.name
    note.write_text(f'{{"root": "{host.root}", "directory": "{leftover.parent}"}}')
    away = host.root.rename(tmp_path / "not mounted yet")
    host.tasks.take_up()
    assert note.exists()
    away.rename(host.root)
    host.tasks.take_up()
    assert not note.exists()
    assert not leftover.exists()


def test_a_note_never_leads_out_of_its_root(tmp_path: Path) -> None:
    host = Host(tmp_path)
    victim = host.outside / ".fleet-put-x"
    victim.write_bytes(b"somebody's")
    (host.root / "sub").symlink_to(host.outside)
    host.notes.mkdir()
    (host.notes / victim.name).write_text(f'{{"root": "{host.root}", "directory": "{host.root / "sub"}"}}')
    (host.notes / ".fleet-put-torn").write_text('{"root"')
    host.tasks.take_up()
    assert victim.exists()
    assert not list(host.notes.iterdir())
