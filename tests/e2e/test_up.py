"""`fleet up`, as a newcomer meets it: real processes, a state directory and ports of its own."""

import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.services.ports import free_ports
from tests.services.up import PAUSE, START_SECONDS, Up, wait_for_port


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    """Whatever a test starts is gone after it."""
    started: list[Up] = []
    yield started
    for up in started:
        up.end()


@pytest.fixture
def ports() -> list[str]:
    broker, flower = free_ports(2)
    return ["--broker-port", str(broker), "--flower-port", str(flower)]


@pytest.fixture
def whole(tmp_path: Path, ups: list[Up], ports: list[str]) -> Up:
    """A `fleet up` on a fresh state directory, ready."""
    ups.append(Up(tmp_path / "state", *ports))
    ups[0].read_until("Ctrl-C ends all of it")
    return ups[0]


@pytest.fixture
def up(tmp_path: Path, ups: list[Up], ports: list[str]) -> Up:
    """The same without the API, which takes its time to start."""
    ups.append(Up(tmp_path / "state", *ports, "--no-api"))
    ups[0].read_until("Ctrl-C ends all of it")
    return ups[0]


def get(url: str, *, user: str = "") -> int:
    request = urllib.request.Request(url)
    if user:
        request.add_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code


def test_a_first_start_says_what_runs_and_a_pushed_task_runs(whole: Up, ports: list[str]) -> None:
    up = whole
    text = "".join(up.said)
    assert "Fleet is up; its state is in " in text
    assert f"127.0.0.1:{ports[1]}" in text
    password = re.search(r"user fleet, password (\S+) \(shown this once", text)
    assert password is not None
    assert text.count("push-task fleet.host.ping --host laptop --wait") == 1
    for name in ("broker", "control", "worker", "flower"):
        assert psutil.pid_exists(up.pid(name))
    # nothing secret where every user of the machine can read it
    assert not [word for child in up.family() for word in child.cmdline() if "redis://" in word or "fleet." in word]
    assert (up.state / "fleet.toml").stat().st_mode & 0o777 == 0o600

    pushed = up.fleet("push-task", "fleet.host.ping", "--host", "laptop", "--wait")
    assert (pushed.returncode, pushed.stderr) == (0, "")
    listed = up.fleet("host", "list", "-o", "json")
    assert '"presence": "online"' in listed.stdout
    [principal] = json.loads(up.fleet("principal", "list", "-o", "json").stdout)
    assert (principal["level"], len(principal["approves"])) == ("autonomous", 4), "it approves what others ask for"

    url = f"http://127.0.0.1:{ports[3]}/workers"
    wait_for_port(int(ports[3]))
    assert get(url) == 401
    assert get(url, user=f"fleet:{password[1]}") == 200

    rest = up.stop()
    assert rest.splitlines()[0] == "Stopping …"
    assert "the state stays in" in rest


def test_a_second_start_finds_its_state_and_shows_no_password_again(
    tmp_path: Path, ups: list[Up], up: Up, ports: list[str]
) -> None:
    up.fleet("push-task", "fleet.host.ping", "--host", "laptop", "--wait")
    up.stop(signal.SIGTERM)
    ups.append(Up(tmp_path / "state", "--no-api"))  # no ports: it keeps those that it has
    again = ups[-1]
    again.read_until("Ctrl-C ends all of it")
    text = "".join(again.said)
    assert f"127.0.0.1:{ports[1]}" in text
    assert f"password in {again.state / 'flower.password'}" in text
    assert "fleet.host.ping" in again.fleet("task", "list").stdout
    assert "enrolled" not in (again.state / "log" / "worker.log").read_text().partition("worker.stopped")[2]

    # and at another port, the enrolled host comes along
    again.stop(signal.SIGHUP)
    (moved,) = free_ports(1)
    ups.append(Up(tmp_path / "state", "--broker-port", str(moved), "--no-flower", "--no-api"))
    ups[-1].read_until("Ctrl-C ends all of it")
    assert "flower" not in "".join(ups[-1].said).replace("--no-flower", "")
    assert ups[-1].fleet("push-task", "fleet.host.ping", "--host", "laptop", "--wait").returncode == 0


def test_without_docker_it_says_so_and_the_rest_runs(tmp_path: Path, ups: list[Up], ports: list[str]) -> None:
    socket_path = tmp_path / "no.sock"
    wishes = [*ports, "--no-flower", "--no-api"]
    ups.append(Up(tmp_path / "state", *wishes, FLEET_DOCKER_URL=f"unix://{socket_path}"))
    ups[0].read_until(rf"no Docker Engine answers at unix://{socket_path} \(No such file or directory\)")
    ups[0].read_until("Everything but container work runs")


def test_it_says_what_the_fleet_may_do_to_this_machine_and_takes_no_shell(
    tmp_path: Path, ups: list[Up], ports: list[str]
) -> None:
    ups.append(Up(tmp_path / "state", *ports, "--no-flower", "--no-api", "--no-shell"))
    ups[0].read_until("Ctrl-C ends all of it")
    assert "What the fleet may do to laptop by this worker: " in "".join(ups[0].said)
    assert "no commands and no files, which are switched off here" in (tmp_path / "state/log/worker.log").read_text()
    assert "switched off by the host's owner" in ups[0].fleet("host", "show", "laptop").stdout
    seen = ups[0].fleet("worker", "status", "--host-id", "laptop")
    assert (seen.returncode, "not by `fleet worker start`" in seen.stdout) == (0, True)
    assert ups[0].fleet("worker", "stop", "--host-id", "laptop").returncode == 1


def test_a_second_one_on_the_same_state_is_refused_with_the_pid_of_the_first(up: Up) -> None:
    refused = up.fleet("up")
    assert refused.returncode == 1
    assert f"is running already on {up.state} (pid {up.process.pid})" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("option", "purpose"), [("--broker-port", "broker"), ("--flower-port", "Flower")])
def test_a_port_in_use_is_said_with_the_option_that_changes_it(
    tmp_path: Path, ups: list[Up], ports: list[str], option: str, purpose: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        ports[ports.index(option) + 1] = str(taken)
        ups.append(Up(tmp_path / "state", *ports))
        _, said = ups[0].process.communicate(timeout=START_SECONDS)
    assert ups[0].process.returncode == 1
    assert f"port {taken} ({purpose}) on 127.0.0.1 cannot be used (Address already in use)" in said
    assert option in said
    assert len(said.splitlines()) == 1


def test_whichever_child_is_killed_comes_back_and_that_is_said(up: Up) -> None:
    for name in ("broker", "worker", "control", "flower"):
        os.kill(up.pid(name), signal.SIGKILL)
        up.read_until(rf"^{name}: killed by SIGKILL after .* starting again in ")
        back = up.read_until(rf"^{name}: started again, pid (\d+)")
        assert psutil.pid_exists(int(back[1]))
    pushed = up.fleet("push-task", "fleet.host.ping", "--host", "laptop", "--wait", "--offline", "queue")
    assert pushed.returncode == 0, pushed.stderr + up.logs()
    up.stop()


def test_kill_9_of_fleet_up_itself_leaves_no_process(whole: Up) -> None:
    whole.stop(signal.SIGKILL)


def test_ctrl_c_while_it_starts_ends_it(tmp_path: Path, ups: list[Up], ports: list[str]) -> None:
    ups.append(Up(tmp_path / "state", *ports))
    deadline = time.monotonic() + START_SECONDS
    while len(ups[0].family()) < 2 and time.monotonic() < deadline:
        assert ups[0].process.poll() is None
        PAUSE.wait(0.02)
    assert ups[0].stop().splitlines()[-1].startswith("Everything has ended")


def test_another_broker_in_the_settings_is_a_contradiction(tmp_path: Path, ups: list[Up], ports: list[str]) -> None:
    ups.append(Up(tmp_path / "state", *ports, FLEET_BROKER_URL="rediss://:hush@broker.example:6379/0"))
    _, said = ups[0].process.communicate(timeout=START_SECONDS)
    assert ups[0].process.returncode == 2
    assert "`fleet up` brings its own; unset FLEET_BROKER_URL" in said
    assert "hush" not in said


def test_a_state_directory_that_cannot_be_written_is_one_line(tmp_path: Path, ups: list[Up], ports: list[str]) -> None:
    (tmp_path / "file").write_text("")
    ups.append(Up(tmp_path / "file" / "state", *ports))
    _, said = ups[0].process.communicate(timeout=START_SECONDS)
    assert ups[0].process.returncode == 1
    assert re.fullmatch(r"fleet: error: the state directory .* cannot be used \(Not a directory\); .*\n", said)
