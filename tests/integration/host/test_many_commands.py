"""Commands on a worker as a process: a gigabyte of output, many at once, and a worker that is killed."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fleet import names
from tests.services.freezing import frozen
from tests.services.office import list_programs, rule, start
from tests.services.system import Part, System
from tests.services.waiting import until
from workers.host.commands import MOST_COMMANDS

GIGABYTE = 2**30
#: A secret that the worker knows.
CANARY = "canary-of-a-secret-4711"


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def worker(system: System) -> Part:
    """A fleet of one host."""
    system.start_control()
    system.enroll("h1")
    return system.start_worker("h1")


def push(system: System, *argv: str, **options: object) -> str:
    """Push a command that the policy lists as it is, and nothing else."""
    list_programs(system, argv)
    return push_again(system, *argv, **options)


def push_again(system: System, *argv: str, **options: object) -> str:
    """Push what the policy lists."""
    return system.fleet.push("fleet.shell.run", on="h1", arguments={"argv": list(argv)}, **options).run_ids[0]  # type: ignore[arg-type]


def in_hand(system: System) -> int:
    beat = system.heartbeat("h1")
    return beat.in_hand if beat else 0


@contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Look again and again, from another thread."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.02):
            look()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("argv", "block"),
    [
        (("/usr/bin/head", "-c", str(GIGABYTE), "/dev/zero"), b"\0\0"),
        (("/bin/sh", "-c", f"yes | head -c {GIGABYTE}"), b"y\n"),
    ],
    ids=["zeros", "lines"],
)
def test_a_gigabyte_of_output_costs_the_worker_no_memory_and_is_counted_to_the_last_byte(
    system: System, worker: Part, argv: tuple[str, ...], block: bytes
) -> None:
    process = psutil.Process(worker.process.pid)
    system.record(push(system, "/bin/sh", "-c", "yes | head -c 2000000"), state="succeeded")  # all is imported by now
    before, most, most_of_supervisor = process.memory_info().rss, 0, 0

    def look() -> None:
        nonlocal most, most_of_supervisor
        most = max(most, process.memory_info().rss)
        for child in process.children(recursive=True):
            try:
                if child.name() == "fleet-run":
                    most_of_supervisor = max(most_of_supervisor, child.memory_full_info().uss)
            except psutil.Error:
                continue

    begun = time.monotonic()
    with watched(look):
        run = push(system, *argv)
        reply = until(
            lambda: system.fleet.dispatcher.task("fleet.shell.run").AsyncResult(run).result, "it ends", timeout=200
        )
    took = time.monotonic() - begun
    print(f"{took:.1f} s; worker + {(most - before) / 2**20:.1f} MiB; supervisor {most_of_supervisor / 2**20:.1f} MiB")
    assert reply["stdout_bytes"] == GIGABYTE
    assert reply["truncated"]
    digest = hashlib.sha256()
    for _ in range(1024):
        digest.update(block * (GIGABYTE // 1024 // 2))
    assert reply["stdout_sha256"] == digest.hexdigest()
    assert most - before <= 32 * 2**20
    assert most_of_supervisor <= 48 * 2**20


def test_sixty_four_run_at_once_the_rest_waits_and_the_host_never_looks_absent(
    system: System, worker: Part, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    line = f"touch {there}/$$; while ! [ -e {tmp_path}/go ]; do sleep 0.2; done; head -c 20000 /dev/zero; rm {there}/$$"
    absent: list[float] = []

    def look() -> None:
        if not system.redis.exists(names.presence("h1")):
            absent.append(time.monotonic())

    with watched(look):
        argv = ("/bin/sh", "-c", line)
        list_programs(system, argv)
        runs = [push_again(system, *argv, time_limit=280) for _ in range(MOST_COMMANDS + 20)]
        until(lambda: len(list(there.iterdir())) >= MOST_COMMANDS, "so many run", timeout=90)
        until(lambda: in_hand(system) == MOST_COMMANDS + 8, "the pool's own threads run some too", timeout=60)
        until(lambda: len(list(there.iterdir())) == MOST_COMMANDS + 8, "they run", timeout=30)
        assert system.redis.llen(names.queue("h1")) > 0
        before = system.heartbeat("h1")
        until(lambda: system.heartbeat("h1") != before, "another heartbeat")
        assert (in_hand(system), len(list(there.iterdir()))) == (MOST_COMMANDS + 8, MOST_COMMANDS + 8)
        (tmp_path / "go").touch()
        begun = time.monotonic()
        for run in runs:
            system.record(run, state="succeeded", timeout=120)
        print(f"{time.monotonic() - begun:.1f} s until all are on record")
    assert absent == []
    assert not list(there.iterdir())


def test_time_limits_hold_when_many_run_at_once(system: System, worker: Part) -> None:
    argv = ("/bin/sleep", "600")
    list_programs(system, argv)
    begun = time.monotonic()
    runs = [push_again(system, *argv, time_limit=2) for _ in range(MOST_COMMANDS)]
    for run in runs:
        error = system.record(run, state="failed").error
        assert error is not None
        assert error["kind"] == "time_limit"
    assert time.monotonic() - begun < 100  # one after the other they would take 128
    mine = {each.pid for each in psutil.Process(worker.process.pid).children(recursive=True)}
    assert not [
        each
        for each in psutil.process_iter(["cmdline"])
        if each.info["cmdline"] == ["/bin/sleep", "600"] and each.pid in mine
    ]


def test_a_killed_worker_costs_a_command_nothing_and_the_next_one_reports_it_once(
    system: System, worker: Part, tmp_path: Path
) -> None:
    line = f"echo x >> {tmp_path}/log; while ! [ -e {tmp_path}/go ]; do sleep 0.1; done; echo out; echo err >&2; exit 3"
    run = push(system, "/bin/sh", "-c", line)
    until((tmp_path / "log").exists, "it runs")
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    (tmp_path / "go").touch()
    system.start_worker("h1")
    reply = system.record(run, state="succeeded").reply
    assert reply is not None
    assert (reply["exit_code"], reply["stdout"], reply["stderr"]) == (3, "out\n", "err\n")
    told = [event.event for event in system.life(run)]
    assert told.count("run.succeeded") == told.count("session.ended") == 1
    assert (tmp_path / "log").read_text() == "x\n"


def test_who_follows_a_command_gets_its_end_also_from_a_worker_that_was_killed(
    system: System, worker: Part, tmp_path: Path
) -> None:
    line = f"printf 'one\ntw'; while ! [ -e {tmp_path}/go ]; do sleep 0.1; done; printf 'o\nthree\n'; echo err >&2"
    list_programs(system, ("/bin/sh", "-c", line))
    follower = start(system, "exec", "--host", "h1", "--follow", "--", "/bin/sh", "-c", line)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "one\n"
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    (tmp_path / "go").touch()
    system.start_worker("h1")
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, out, err) == (0, "two\nthree\n", "err\n")


def test_the_hosts_own_secrets_are_masked_in_what_comes_back(system: System, worker: Part) -> None:
    path = system.settings.credential_path("h1")
    run = push(system, "/bin/cat", str(path))
    reply = system.record(run, state="succeeded").reply
    assert reply is not None
    assert '"private_key":"***"' in reply["stdout"].replace(" ", "")
    assert ":***@" in reply["stdout"]


def test_the_workers_own_log_shows_no_known_secret_of_a_run_that_failed(system: System, tmp_path: Path) -> None:
    """A path that is granted and leads nowhere: the error that says so names it, in the result and in the log."""
    system.start_control()
    system.enroll("h1")
    worker = system.start_worker("h1", FLEET_FLOWER_PASSWORD=CANARY)
    pattern = f'{{ path = "{tmp_path}" }}'
    rule(system, f'[[commands]]\nname = "cat"\nrisk = "reads"\nargv = ["/bin/cat", {pattern}]\n')
    argv = ["/bin/cat", f"{tmp_path}/{CANARY}/gone"]
    run = system.fleet.push("fleet.shell.run", on="h1", arguments={"argv": argv}).run_ids[0]
    error = system.record(run, state="failed").error
    assert error is not None
    said = until(lambda: [line for line in worker.log.read_text().splitlines() if "run.failed" in line], "it is logged")
    for text in (error["message"], *said):
        assert f"path {tmp_path}/***/gone: it cannot be followed" in text
    assert CANARY not in worker.log.read_text()


def test_a_frozen_worker_holds_no_command_up(system: System, worker: Part, tmp_path: Path) -> None:
    line = (
        f"touch {tmp_path}/begun; while ! [ -e {tmp_path}/go ]; do sleep 0.1; done; "
        f"yes | head -c 50000000; touch {tmp_path}/end"
    )
    run = push(system, "/bin/sh", "-c", line)
    until((tmp_path / "begun").exists, "it runs")
    with frozen(worker.process.pid):
        (tmp_path / "go").touch()
        until((tmp_path / "end").exists, "it has ended", timeout=60)
    reply = system.record(run, state="succeeded").reply
    assert reply is not None
    assert (reply["exit_code"], reply["stdout_bytes"]) == (0, 50_000_000)
