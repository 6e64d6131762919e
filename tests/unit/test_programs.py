"""Programs: the program that was checked is the one that runs, whatever is done to its file in between."""

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fleet import errors
from workers.host import programs
from workers.host.programs import Program


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that others may not write to, with nothing on the way that they may."""
    place = tmp_path / "bin"
    place.mkdir(mode=0o755)
    return place


def script(path: Path, *lines: str, mode: int = 0o755) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(mode)
    return path


def run(program: Program, *arguments: str) -> tuple[int, str]:
    """Become a program in a child; return its exit status, 200 where it was refused, and what it wrote."""
    output, written = os.pipe()
    child = os.fork()
    if child == 0:
        status = 201
        try:
            os.dup2(written, 1)
            os.dup2(written, 2)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            argv = [program.path.encode(), *(argument.encode() for argument in arguments)]
            programs.become(program, argv, {b"PATH": b"/usr/bin:/bin"})
        except errors.TaskFailed as exc:
            os.write(1, exc.kind.encode())
            status = 200
        except BaseException as exc:  # noqa: BLE001 - a child must end as one
            os.write(1, repr(exc).encode())
        finally:
            os._exit(status)
    os.close(written)
    with os.fdopen(output) as opened:
        said = opened.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def found(path: Path) -> Program | None:
    """Find a program that is swapped at the moment; None where that is seen."""
    try:
        return programs.find(str(path))
    except errors.NotGranted as exc:
        if exc.kind != "program_changed":
            raise
        return None


def refused(path: Path | str) -> str:
    with pytest.raises(errors.TaskFailed) as caught:
        programs.find(str(path))
    return caught.value.kind


def test_a_program_runs_by_the_name_that_the_policy_has_for_it(place: Path) -> None:
    (place / "echo-by-another-name").symlink_to("/bin/echo")
    program = programs.find(str(place / "echo-by-another-name"))
    assert program.resolved == str(Path("/bin/echo").resolve())
    assert run(program, "hello") == (0, "hello\n")
    assert Program.load(asdict(program)) == program


def test_a_script_runs_from_a_copy_that_nobody_can_change(place: Path) -> None:
    program = programs.find(str(script(place / "say", 'echo "$@"; (echo >> "$0") 2>/dev/null || echo sealed')))
    assert program.is_script
    assert program.interpreter is not None
    assert run(program, "a b", "c") == (0, "a b c\nsealed\n")


def test_a_script_by_env_runs_with_the_interpreter_that_is_found(place: Path) -> None:
    path = place / "say"
    path.write_text("#!/usr/bin/env -S sh\necho by env\n")
    path.chmod(0o755)
    assert run(programs.find(str(path))) == (0, "by env\n")


@pytest.mark.parametrize("mode", [0o644, 0o775, 0o757, 0o4777])
def test_a_file_that_is_no_program_or_that_others_may_write_is_refused(place: Path, mode: int) -> None:
    expected = "no_such_program" if mode == 0o644 else "unsafe_program"
    assert refused(script(place / "it", mode=mode)) == expected


def test_what_is_not_there_or_no_file_is_no_program(place: Path) -> None:
    os.mkfifo(place / "fifo", 0o700)
    (place / "loop").symlink_to("loop")
    (place / "nothing").symlink_to("not-there")
    script(place / "file")
    for path in ("fifo", "loop", "nothing", "absent", "file/below", "", "."):
        assert refused(place / path) == "no_such_program", path
    assert refused("echo") == "no_such_program"


def test_every_directory_on_the_way_counts_as_written_and_as_resolved(place: Path) -> None:
    (place / "open").mkdir()
    script(place / "open" / "it")
    (place / "link").symlink_to(place / "open" / "it")
    programs.find(str(place / "link"))
    (place / "open").chmod(0o777)
    assert refused(place / "open" / "it") == refused(place / "link") == "unsafe_program"
    (place / "open").chmod(0o1777)  # as /tmp: entries are their owners'
    programs.find(str(place / "link"))
    (place / "open" / "to").symlink_to("/bin/true")
    (place / "open").chmod(0o777)
    assert refused(place / "open" / "to") == "unsafe_program"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_refused_as_are_links_of_theirs(place: Path) -> None:
    os.chown(script(place / "theirs"), 12345, 0)
    assert refused(place / "theirs") == "unsafe_program"
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    (place / "sticky" / "link").symlink_to("/bin/true")
    os.chown(place / "sticky" / "link", 12345, 0, follow_symlinks=False)
    assert refused(place / "sticky" / "link") == "unsafe_program"


def test_an_interpreter_is_looked_at_like_a_program(place: Path) -> None:
    shutil.copy("/bin/sh", place / "own-sh")
    path = place / "it"
    path.write_text(f"#!{place}/own-sh\necho ran\n")
    path.chmod(0o755)
    assert run(programs.find(str(path))) == (0, "ran\n")
    (place / "own-sh").chmod(0o777)
    assert refused(path) == "unsafe_program"
    script(place / "own-sh")
    assert refused(path) == "unsafe_program"  # a script of a script
    (place / "own-sh").unlink()
    assert refused(path) == "no_such_program"


SWAPS: dict[str, Callable[[Path, Path], None]] = {}


def swap(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    SWAPS[function.__name__] = function
    return function


@swap
def replaced_by_rename(path: Path, evil: Path) -> None:
    shutil.copy(evil, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path.resolve())


@swap
def link_retargeted(path: Path, evil: Path) -> None:
    path.with_suffix(".new").symlink_to(evil)
    path.with_suffix(".new").rename(path)


@swap
def rewritten_in_place(path: Path, evil: Path) -> None:
    with path.open("r+b") as opened:  # with the same size, and soon enough for the same time stamp
        opened.write(evil.read_bytes().ljust(path.stat().st_size, b"\n")[: path.stat().st_size])


@swap
def made_writable(path: Path, evil: Path) -> None:
    path.chmod(0o775)


@swap
def removed(path: Path, evil: Path) -> None:
    path.unlink()


@swap
def rewritten_with_the_old_times(path: Path, evil: Path) -> None:
    before = path.stat()
    rewritten_in_place(path, evil)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def evil(tmp_path: Path, canary: Path) -> Path:
    return script(tmp_path / "evil", f"echo ran > {canary}")


@pytest.mark.parametrize("kind", ["script", "binary"])
def test_a_program_that_was_swapped_a_thousand_times_never_runs(
    place: Path, evil: Path, canary: Path, kind: str
) -> None:
    names = list(SWAPS)
    for number in range(500):
        target, path = place / "target", place / "it"
        for each in (target, path):
            each.unlink(missing_ok=True)
        if kind == "script":
            script(target, "exit 0", "# " + "x" * 200)
        else:
            shutil.copy("/bin/true", target)
        path.symlink_to(target)
        program = programs.find(str(path))
        name = names[number % len(names)]
        SWAPS[name](path, evil)
        status, said = run(program)
        assert (status, canary.exists()) == (200, False), (name, status, said)
        assert said in {"program_changed", "unsafe_program", "no_such_program"}


@pytest.mark.parametrize("kind", ["script", "binary"])
def test_with_somebody_who_swaps_all_the_time_only_what_was_checked_runs(
    place: Path, tmp_path: Path, kind: str
) -> None:
    """Each of the two is allowed in itself; that which runs must be the one that was found."""
    one, other = place / "one", place / "other"
    for path, word in ((one, "one"), (other, "other")):
        if kind == "script":
            script(path, f"echo {word}")
        else:
            shutil.copy(f"/bin/{'true' if word == 'one' else 'false'}", path)
    link = place / "link"
    link.symlink_to(one)
    over = threading.Event()

    def swap_all_the_time() -> None:
        number = 0
        while not over.is_set():
            number += 1
            spare = place / f"spare-{number}"
            spare.symlink_to(random.choice((one, other)))
            spare.rename(link)

    thread = threading.Thread(target=swap_all_the_time)
    thread.start()
    counts = {"ran": 0, "refused": 0}
    try:
        for _ in range(100):
            program = found(link)
            if program is None:
                counts["refused"] += 1
                continue
            status, said = run(program)
            if status == 200:
                assert said == "program_changed"
                counts["refused"] += 1
                continue
            counts["ran"] += 1
            is_one = program.resolved == str(one)
            assert (status, said) == (
                (0, f"{'one' if is_one else 'other'}\n") if kind == "script" else (int(not is_one), "")
            )
    finally:
        over.set()
        thread.join()
    assert counts["ran"] > 10, counts


def test_a_program_that_somebody_writes_to_at_the_moment_is_refused(place: Path) -> None:
    path = place / "it"
    shutil.copy("/bin/true", path)
    program = programs.find(str(path))
    with path.open("r+b"):
        assert run(program) == (200, "program_changed")
    assert run(program) == (0, "")


def test_a_script_with_other_content_than_was_checked_is_refused_whatever_its_times_say(place: Path) -> None:
    program = programs.find(str(script(place / "it", "echo right")))
    assert run(replace(program, sha256="0" * 64)) == (200, "program_changed")
