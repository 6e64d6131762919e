"""Where a process listens, as people write it, and what systemd tells a process."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from fleet import configuration, environment, errors, listening
from fleet.environment import ServiceManager
from fleet.listening import Listening
from fleet.settings import Settings


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("[::1]:8000", "::1", 8000),
        ("localhost:65535", "localhost", 65535),
        ("0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_an_address_with_a_port_is_read_and_written(text: str, host: str, port: int) -> None:
    found = listening.parse(text, example="x", any_port=True)
    assert found == Listening(host=host, port=port)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8000",
        ":8000",
        "127.0.0.1",
        "127.0.0.1:",
        "::1:8000",
        "[127.0.0.1]:8000",
        "[::1:8000",
        "[::1%eth0]:80",
        "a b:80",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:\u0661",
        "127.0.0.1:8000\n",
        "http://127.0.0.1:80",
        "x" * 300 + ":80",
        "127.0.0.1:" + "9" * 5000,
    ],
)
def test_what_is_no_address_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"^write ADDRESS:PORT, such as 127\.0\.0\.1:8000$"):
        listening.parse(text, example="127.0.0.1:8000", any_port=True)


def test_any_port_is_one_only_where_it_means_something() -> None:
    with pytest.raises(ValueError, match="write ADDRESS:PORT"):
        listening.parse("127.0.0.1:0", example="x")


def test_the_usual_port_is_on_loopback_and_nobody_insists_on_it() -> None:
    usual = Settings().health_listening(port=8001)
    assert usual == Listening(host="127.0.0.1", port=8001, insisted=False)
    assert Settings(health_address="off").health_listening(port=8001) is None
    named = Settings(health_address="[::1]:0").health_listening(port=8001)
    assert named == Listening(host="::1", port=0, insisted=True)


def test_a_wrong_health_address_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_HEALTH_ADDRESS", "everywhere")
    with pytest.raises(errors.SettingsInvalid, match="FLEET_HEALTH_ADDRESS: 'everywhere': write ADDRESS:PORT, such as"):
        configuration.load(state_dir=Path("/nonexistent"))


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    return monkeypatch


def test_what_systemd_tells_a_process_is_taken_once_and_is_nobody_else_s(manager: pytest.MonkeyPatch) -> None:
    for inherited in (environment.inherited(), environment.for_tasks()):
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(inherited)
    taken = environment.take_service_manager()
    assert taken == ServiceManager(socket="/run/systemd/notify", watchdog=timedelta(seconds=30))
    assert "NOTIFY_SOCKET" not in os.environ
    assert "WATCHDOG_USEC" not in os.environ
    assert environment.take_service_manager() is None


@pytest.mark.parametrize(
    ("variables", "watchdog"),
    [
        ({"WATCHDOG_PID": str(os.getpid())}, timedelta(seconds=30)),
        ({"WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_PID": "junk"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "18446744073709551615"}, timedelta(microseconds=10**15)),
    ],
)
def test_a_watchdog_is_served_where_it_is_this_process_s(
    manager: pytest.MonkeyPatch, variables: dict[str, str], watchdog: timedelta | None
) -> None:
    for name, value in variables.items():
        manager.setenv(name, value)
    taken = environment.take_service_manager()
    assert taken is not None
    assert taken.watchdog == watchdog


@pytest.mark.parametrize("socket", ["", "relative", "vsock:2:1"])
def test_a_socket_that_cannot_be_one_is_none(manager: pytest.MonkeyPatch, socket: str) -> None:
    manager.setenv("NOTIFY_SOCKET", socket)
    assert environment.take_service_manager() is None
