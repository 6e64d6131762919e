"""Facts: what a host says about itself, and the address that it registers."""

import socket

import pytest

from fleet import errors
from fleet.settings import DEFAULT_PORT, Settings
from workers.host import facts
from workers.host.containers.engine import Engine


@pytest.fixture(autouse=True)
def _no_address_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AGENT_HOST", "AGENT_PORT", "FLEET_ADVERTISE_HOST", "FLEET_ADVERTISE_PORT"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("engine", [None, Engine("unix:///nowhere/docker.sock")])
def test_a_host_without_an_engine_has_all_other_facts(engine: Engine | None) -> None:
    found = facts.detect(Settings(), engine, takes_commands=True)
    assert (found.hostname, found.address, found.port) == (socket.gethostname(), socket.gethostname(), DEFAULT_PORT)
    assert found.docker_version is None
    assert found.cpus >= 1
    assert found.memory_bytes > 1 << 20
    assert all((found.os, found.kernel, found.architecture, found.python_version, found.fleet_version))


def test_the_address_comes_from_the_setting_then_from_the_agents_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_HOST", "fd00::7")
    monkeypatch.setenv("AGENT_PORT", "65535")
    assert Settings().resolved_advertise_host == "fd00::7"
    assert Settings().resolved_advertise_port == 65535
    assert Settings(advertise_host="web-1.example.org").resolved_advertise_host == "web-1.example.org"
    assert Settings(advertise_port=1).resolved_advertise_port == 1


@pytest.mark.parametrize(
    "given", ["http://web-1", "web-1:8000", "10.0.0.7:80", "a b", "-a", "a\n", "a" * 254, "[fd00::7]"]
)
def test_what_is_no_address_is_refused_by_the_variables_name(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_HOST", given)
    with pytest.raises(errors.SettingsInvalid, match=r"AGENT_HOST.*without scheme and port"):
        _ = Settings().resolved_advertise_host
    with pytest.raises(errors.SettingsInvalid, match="FLEET_ADVERTISE_HOST"):
        _ = Settings(advertise_host=given).resolved_advertise_host


@pytest.mark.parametrize("given", ["0", "65536", "-1", "8000.0", "http", "８０００"])
def test_what_is_no_port_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_PORT", given)
    with pytest.raises(errors.SettingsInvalid, match="AGENT_PORT"):
        _ = Settings().resolved_advertise_port


@pytest.mark.parametrize("shell", [True, False])
def test_a_host_says_whether_commands_and_files_are_switched_off(*, shell: bool) -> None:
    assert facts.detect(Settings(), None, takes_commands=shell).shell is shell
