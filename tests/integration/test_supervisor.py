"""The supervisor and the embedded broker, on real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis

from fleet import errors
from fleet.broker import connection
from fleet.local import supervisor
from fleet.local.broker import EmbeddedBroker
from fleet.local.output import Output
from fleet.local.ports import require_free
from fleet.local.signals import Signals
from fleet.local.state import StateDirectory
from fleet.local.supervisor import Outcome, Program, Supervisor
from tests.services.ports import free_port

#: Prints its pid, starts a child that leaves the session, ignores SIGTERM where it is told to.
STUBBORN = """
import os, signal, sys
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", os.getpid(), flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "state")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def running(said: list[str]) -> Iterator[Supervisor]:
    with Signals() as signals:
        supervised = Supervisor(signals=signals, say=said.append)
        yield supervised
        assert supervised.stop() == []


def python(state: StateDirectory, code: str, *arguments: str, name: str = "child") -> Program:
    return Program(
        name=name,
        argv=[sys.executable, "-c", code, *arguments],
        environment=dict,
        directory=state.path,
        output=state.logs / f"{name}.log",
    )


@pytest.fixture
def broker(state: StateDirectory, running: Supervisor) -> EmbeddedBroker:
    embedded = EmbeddedBroker.of(None, None, port=free_port())
    running.start(embedded.program(state))
    assert running.watch(embedded.answers, seconds=30) is Outcome.READY
    return embedded


def settings_of(client: "redis.Redis[str]", *names: str) -> list[str]:
    return [str(client.config_get(name)[name]) for name in names]


def test_the_embedded_broker_is_durable_private_and_keeps_its_queues(
    state: StateDirectory, running: Supervisor, broker: EmbeddedBroker
) -> None:
    client: redis.Redis[str] = redis.Redis.from_url(broker.url.get_secret_value(), decode_responses=True)
    assert settings_of(client, "appendonly", "appendfsync", "maxmemory-policy", "bind") == [
        "yes",
        "everysec",
        "noeviction",
        "127.0.0.1",
    ]
    with pytest.raises(redis.AuthenticationError):
        connection.connect(replace(broker.address, username=None, password=None), name="stranger").ping()
    assert (state.broker / "valkey.conf").stat().st_mode & 0o777 == 0o600
    assert broker.password not in " ".join(psutil.Process(running.pid("broker")).cmdline())
    client.lpush("fleet:h:edge-1:q", "message")
    client.close()

    os.kill(running.pid("broker") or 0, signal.SIGKILL)
    running.watch(lambda: running.failures("broker") == 1, seconds=30)
    assert running.watch(lambda: running.pid("broker") is not None and broker.answers(), seconds=30) is Outcome.READY
    client = redis.Redis.from_url(broker.url.get_secret_value(), decode_responses=True)
    assert client.lrange("fleet:h:edge-1:q", 0, -1) == ["message"]
    client.close()


def remembered(state: StateDirectory) -> tuple[object, object]:
    left = state.remembered()
    return left["broker_url"], left["flower_broker_url"]


def test_the_next_start_takes_port_and_password_from_what_was_left(state: StateDirectory) -> None:
    first = EmbeddedBroker.of(None, None, port=7001)
    state.remember(
        {"broker_url": first.url.get_secret_value(), "flower_broker_url": first.flower_url.get_secret_value()}
    )
    assert (state.path / "fleet.toml").stat().st_mode & 0o777 == 0o600
    again = EmbeddedBroker.of(*remembered(state), port=None)
    assert again == first
    moved = EmbeddedBroker.of(*remembered(state), port=7002)
    assert (moved.port, moved.password) == (7002, first.password)


def test_a_child_that_ends_is_started_again_and_its_last_line_is_said(
    state: StateDirectory, running: Supervisor, said: list[str]
) -> None:
    running.start(python(state, "print('the disk is on fire'); raise SystemExit(7)"))
    assert running.watch(lambda: running.failures("child") == 2, seconds=30) is Outcome.READY
    assert said[0].startswith("child: exit code 7 after ")
    assert 'its last line: "the disk is on fire"' in said[0]
    assert said[1].startswith("child: started again, pid ")


def test_waits_double_and_stay_bounded() -> None:
    for failures, least, most in [(1, 0.18, 0.32), (2, 0.37, 0.63), (5, 3, 5), (40, 22.5, 37.5)]:
        assert least <= supervisor.wait_seconds(failures) <= most


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
def test_a_stop_ends_everything_within_three_seconds(
    state: StateDirectory, running: Supervisor, said: list[str], manner: str
) -> None:
    running.start(python(state, STUBBORN, manner))
    output = Output(state.logs / "child.log")
    assert running.watch(lambda: output.last_line().startswith("up "), seconds=30) is Outcome.READY
    leader = psutil.Process(running.pid("child"))
    family = [leader, *leader.children(recursive=True)]
    assert len(family) == 2
    began = time.monotonic()
    assert running.stop() == []
    assert time.monotonic() - began < 15, "below three on an idle machine; nobody waits for the stubborn one"
    assert not [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
    assert said == (["child: did not end in time, killed"] if manner == "stubborn" else [])
    assert running.stop() == []


def test_a_signal_to_stop_ends_the_watch(running: Supervisor) -> None:
    # To this thread: one that an earlier test has left would take what is for the process, which would die of it.
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    assert running.watch(seconds=30) is Outcome.STOPPING


def test_a_child_sees_no_blocked_signal_and_only_its_own_environment(
    state: StateDirectory, running: Supervisor
) -> None:
    code = "import os, signal; print(signal.pthread_sigmask(0, []), [*os.environ], flush=True); signal.pause()"
    running.start(python(state, code))
    output = Output(state.logs / "child.log")
    assert running.watch(lambda: bool(output.last_line()), seconds=30) is Outcome.READY
    assert output.last_line().startswith("set() [")
    assert "HOME" not in output.last_line()


def test_a_second_holder_of_the_state_directory_is_refused_with_the_first_one_s_pid(state: StateDirectory) -> None:
    code = "import sys; from pathlib import Path; from fleet.local.state import StateDirectory\n"
    code += "with StateDirectory(Path(sys.argv[1])).held(): pass"
    command = [sys.executable, "-c", code, str(state.path)]
    with state.held():
        refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert f"is running already on {state.path} (pid {os.getpid()})" in refused.stderr
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_port_in_use_is_named() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(errors.LocalFault, match=rf"port {port} \(Flower\) .*in use.*; choose another"):
            require_free(port, address="127.0.0.1", purpose="Flower", remedy="choose another")
    require_free(port, address="127.0.0.1", purpose="Flower", remedy="choose another")


def test_a_state_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        errors.LocalFault, match=r"the state directory .*/file/state cannot be used \(Not a directory\)"
    ):
        StateDirectory(tmp_path / "file" / "state")


def test_a_full_disk_is_one_sentence_and_leaves_the_former_file(state: StateDirectory) -> None:
    import resource

    state.remember({"flower_port": 5555})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (16, hard)
    )  # the nearest thing to a full disk without a disk of one's own
    try:
        with pytest.raises(errors.LocalFault, match=r"cannot be used \(File too large\); make room"):
            state.remember({"flower_port": 5556})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert state.remembered() == {"flower_port": 5555}
    assert [path.name for path in state.path.glob(".*")] == []


def test_output_is_bounded_and_goes_on_in_the_same_file(tmp_path: Path) -> None:
    output = Output(tmp_path / "child.log", limit_bytes=100)
    with output.path.open("a") as child:
        child.write("x" * 200 + "\n")
        child.flush()
        output.trim()
        child.write("after\n")
    assert output.path.read_text() == "after\n"
    assert (tmp_path / "child.log.1").stat().st_size == 201
    assert output.last_line(since=200) == "after"
