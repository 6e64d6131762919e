"""`fleet worker start | stop | status`: one daemon for each host, found by what it is and not by what a file says."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet import errors
from fleet.local import pidfile
from fleet.local.incarnation import Incarnation
from tests.services.freezing import frozen
from tests.services.system import System
from tests.services.waiting import until


class Daemon:
    """The worker of h1 as somebody at its machine starts and stops it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.directory = system.settings.host_dir("h1")
        self.file = self.directory / pidfile.PID_FILE
        self.log = self.directory / pidfile.LOG

    def __call__(self, verb: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        done = self.system.command("worker", verb, "--host-id", "h1", *words, **environment)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, *words: str, **environment: str) -> int:
        done = self("start", *words, **environment)
        assert done.returncode == 0, done.stderr
        return self.pid()

    def status(self) -> dict[str, Any]:
        done = self("status", "-o", "json")
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if found["state"] == "running" else 3)
        return found

    def pid(self) -> int:
        return int(self.file.read_text().splitlines()[0])

    def workers(self) -> list[int]:
        """Return the daemons whose log is below this very state directory."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                log = Path(f"/proc/{process.pid}/fd/1").readlink()
                if "--ready-fd" in process.cmdline() and log.is_relative_to(self.system.directory):
                    found.append(process.pid)
        return found

    def kill(self) -> None:
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def daemon(system: System) -> Iterator[Daemon]:
    system.start_control()
    system.enroll("h1")
    found = Daemon(system)
    yield found
    print(found.log.read_text() if found.log.is_file() else "no log")
    found.kill()


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that has nothing to do with it."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    assert process.poll() is None, "somebody has ended it"
    process.kill()
    process.communicate()


def gone(pid: int) -> bool:
    return Incarnation.of(pid) is None


def test_a_daemon_is_started_found_and_stopped(daemon: Daemon) -> None:
    assert daemon.status()["state"] == "stopped"
    begun = daemon("start")
    assert begun.returncode == 0, begun.stderr
    pid = daemon.pid()
    assert f"the worker of h1 runs (process {pid}); its log is {daemon.log}" in begun.stderr
    assert begun.stderr.startswith("What the fleet may do to h1 by this worker: ")
    assert daemon.system.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)["host"] == "h1"

    process = psutil.Process(pid)
    assert process.cwd() == "/"
    assert os.getsid(pid) == pid != os.getsid(0)
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path(os.devnull)
    assert process.terminal() is None
    assert daemon.file.stat().st_mode & 0o777 == 0o600
    assert daemon.log.stat().st_mode & 0o777 == 0o600

    found = daemon.status()
    assert (found["state"], found["pid"], found["started_by"]) == ("running", pid, "start")
    assert found["log"] == str(daemon.log)
    assert 0 < found["uptime_seconds"] < 60
    assert found["since"]
    assert found["version"]
    people = daemon("status").stdout
    assert "running" in people
    assert str(pid) in people

    again = daemon("start")
    assert again.returncode == 0
    assert f"runs already (process {pid})" in again.stderr
    assert daemon.workers() == [pid]

    ended = daemon("stop")
    assert ended.returncode == 0, ended.stderr
    assert "waiting for its running tasks, up to 30 s" in ended.stderr
    assert gone(pid)
    assert not daemon.file.exists()
    assert daemon.status()["state"] == "stopped"
    none = daemon("stop")
    assert (none.returncode, none.stderr.strip()) == (0, "the worker of h1 does not run")
    assert daemon.start() != pid
    assert "worker.stopped" in daemon.log.read_text()


def test_of_ten_that_start_it_at_once_one_does_and_all_are_content(daemon: Daemon) -> None:
    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda _: daemon("start"), range(10)))
    assert [each.returncode for each in done] == [0] * 10, [each.stderr for each in done]
    assert daemon.workers() == [daemon.pid()]
    assert sum(f"runs (process {daemon.pid()})" in each.stderr for each in done) == 1
    assert sum(f"runs already (process {daemon.pid()})" in each.stderr for each in done) == 9


def test_what_a_kill_leaves_is_recognized_and_the_next_start_goes_on(daemon: Daemon) -> None:
    pid = daemon.start()
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid), "it is gone")
    assert daemon.status() | {"log": None} == {
        **dict.fromkeys(("pid", "started_by", "since", "uptime_seconds", "version", "log")),
        "host": "h1",
        "state": "stale",
    }
    assert daemon.start() != pid
    os.kill(daemon.pid(), signal.SIGKILL)
    until(lambda: daemon.status()["state"] == "stale", "it is gone")
    ended = daemon("stop")
    assert ended.returncode == 0
    assert "its PID file was stale, and is removed" in ended.stderr
    assert not daemon.file.exists()


@pytest.mark.parametrize("same_start", [False, True], ids=["of another time", "by a file that lies"])
def test_a_number_that_another_process_has_meanwhile_is_not_signaled(
    daemon: Daemon, stranger: int, *, same_start: bool
) -> None:
    process = Incarnation.of(stranger)
    assert process is not None
    if not same_start:
        process = Incarnation(pid=stranger, ticks=process.ticks - 1, boot=process.boot)
    pidfile.write(daemon.file, pidfile.Record(process=process, version="0", stop_grace_seconds=0))
    (daemon.directory / pidfile.LOCK).write_text(str(stranger))
    assert daemon.status()["state"] == "stale"
    assert daemon("stop", "--kill", "--timeout", "1s").returncode == 0
    pidfile.write(daemon.file, pidfile.Record(process=process, version="0", stop_grace_seconds=0))
    assert daemon.start() != stranger


def test_one_that_runs_otherwise_is_seen_and_left_alone(daemon: Daemon) -> None:
    part = daemon.system.start_worker("h1")
    found = daemon.status()
    assert (found["state"], found["started_by"], found["pid"]) == ("running", "other", part.process.pid)
    assert "running, not by `fleet worker start`" in daemon("status").stdout
    begun = daemon("start")
    assert begun.returncode == 0
    assert f"runs already (process {part.process.pid}), not by `fleet worker start`" in begun.stderr
    assert "its log is" not in begun.stderr  # it writes to where it was started
    refused = daemon("stop", "--kill")
    assert refused.returncode == 1
    assert "Ctrl-C in its terminal, `systemctl stop`" in refused.stderr
    assert part.process.poll() is None
    assert part.stop() == 0
    assert daemon.status()["state"] == "stopped"


def test_a_frozen_one_is_waited_for_and_killed_only_when_that_is_asked(daemon: Daemon) -> None:
    pid = daemon.start()
    with frozen(pid):
        late = daemon("stop", "--timeout", "1s")
        assert late.returncode == 124
        assert "goes on ending" in late.stderr
        assert not gone(pid)
        assert daemon.status()["state"] == "running"
        killed = daemon("stop", "--timeout", "1s", "--kill")
        assert killed.returncode == 0, killed.stderr
        assert "killed; its journal knows" in killed.stderr
        assert gone(pid)
    assert daemon.status()["state"] == "stopped"


def test_a_start_that_fails_shows_why_and_leaves_nothing(daemon: Daemon) -> None:
    daemon.system.broker.stop()
    try:
        (daemon.directory / "journal.db").mkdir()
        broken = daemon("start")
    finally:
        daemon.system.broker.start()
    assert broken.returncode == 1
    assert "the worker of h1 did not start: " in broken.stderr
    assert "journal" in broken.stderr
    assert f"its log is {daemon.log}" in broken.stderr
    assert "host.entrusted" not in broken.stderr
    assert daemon.workers() == []
    assert daemon.status()["state"] == "stopped"
    (daemon.directory / "journal.db").rmdir()

    daemon.log.unlink()
    daemon.log.mkdir()
    unwritable = daemon("start")
    assert unwritable.returncode == 1
    assert f"log {daemon.log}: cannot be written" in unwritable.stderr
    assert daemon.workers() == []


def test_a_start_that_takes_too_long_is_ended_within_thirty_seconds(daemon: Daemon) -> None:
    daemon.system.broker.stop()
    try:
        late = daemon("start")
    finally:
        daemon.system.broker.start()
    assert late.returncode == 1
    assert "did not begin to work within 25 s" in late.stderr
    assert "broker.awaited" in late.stderr
    assert daemon.workers() == []
    assert daemon.status()["state"] in {"stale", "stopped"}
    daemon.start()


def test_a_disk_without_room_for_the_pid_file_lets_no_worker_start(daemon: Daemon) -> None:
    small = daemon.system.directory / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False).returncode:
        pytest.skip("a small file system: mounting one takes root")
    try:
        (small / "hosts" / "h1").mkdir(parents=True, mode=0o700)
        credential = str(daemon.directory / "credential.json")
        with (small / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        full = daemon("start", FLEET_STATE_DIR=str(small), FLEET_CREDENTIAL=credential)
        assert full.returncode == 1
        assert f"lock {small}/hosts/h1/worker.lock: cannot be written (No space left on device)" in full.stderr
        process = Incarnation.of(os.getpid())
        assert process is not None
        file = small / "hosts" / "h1" / pidfile.PID_FILE
        with pytest.raises(errors.LocalFault, match=r"worker\.pid: cannot be written \(No space left on device\)"):
            pidfile.write(file, pidfile.Record(process=process, version="0", stop_grace_seconds=0))
        assert daemon.workers() == []
        assert not file.exists()
        assert list(file.parent.glob(".worker*")) == []
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_another_time_of_day_makes_it_no_other_process(daemon: Daemon) -> None:
    def command(verb: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["faketime", "+10 days", sys.executable, "-m", "fleet", "worker", verb, "--host-id", "h1"],
            env=daemon.system.environment(), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    begun = command("start")
    assert begun.returncode == 0, begun.stderr
    assert daemon.status()["started_by"] == "start"
    assert 0 < daemon.status()["uptime_seconds"] < 60
    assert daemon("stop").returncode == 0
    daemon.start()
    ended = command("stop")
    assert ended.returncode == 0, ended.stderr
    assert daemon.workers() == []


def test_a_token_enrolls_before_the_daemon_starts_and_its_errors_are_seen(system: System) -> None:
    system.start_control()
    daemon = Daemon(system)
    try:
        nothing = daemon("start")
        assert nothing.returncode == 4
        assert "host 'h1' has no credential" in nothing.stderr
        token = system.directory / "token"
        token.write_text(system.token(host_id="h2"))
        refused = daemon("start", "--token-file", str(token))
        assert refused.returncode == 4
        assert "enrollment refused" in refused.stderr
        assert not daemon.log.exists()
        token.write_text(system.token(host_id="h1"))
        begun = daemon("start", FLEET_TOKEN_FILE=str(token))
        assert begun.returncode == 0, begun.stderr
        assert "h1 is enrolled" in begun.stderr
        assert "FLEET_TOKEN_FILE" not in psutil.Process(daemon.pid()).environ()
    finally:
        daemon.kill()


def test_relative_settings_mean_the_directory_that_it_was_started_in(daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "worker", "start", "--host-id", "h1"],
        cwd=daemon.system.directory.parent, env=daemon.system.environment(FLEET_STATE_DIR=daemon.system.directory.name),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pid = daemon.pid()
    assert daemon.status()["pid"] == pid
    assert daemon.system.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)["host"] == "h1"


def test_options_may_stand_before_the_verb_where_it_takes_them(daemon: Daemon) -> None:
    system = daemon.system
    done = system.command("worker", "--host-id", "h1", "--concurrency", "3", "start", "--no-shell", "-o", "json")
    assert done.returncode == 0, done.stderr
    words = psutil.Process(json.loads(done.stdout)["pid"]).cmdline()
    assert "--concurrency 3 --no-shell" in " ".join(words)
    assert system.command("worker", "--host-id", "h1", "status").returncode == 0
    wrong = system.command("worker", "--concurrency", "3", "status", "--host-id", "h1")
    assert wrong.returncode == 2
    assert "--concurrency means nothing to `fleet worker status`" in wrong.stderr
    assert system.command("worker", "--host-id", "h1", "stop").returncode == 0
    unknown = system.command("worker", "strat")
    assert unknown.returncode == 2
    assert "did you mean 'start'?" in unknown.stderr


def test_an_interrupted_start_leaves_nothing_half_started(daemon: Daemon) -> None:
    daemon.system.broker.stop()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "worker", "start", "--host-id", "h1"],
            env=daemon.system.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        until(lambda: daemon.log.is_file() and "broker.awaited" in daemon.log.read_text(), "it waits for the broker")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        daemon.system.broker.start()
    assert (process.returncode, said.strip()) == (130, "fleet: interrupted")
    assert daemon.workers() == []
