"""The host owner's policy: strict, safe from others, and exactly what it says."""

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet import configuration, errors, policy, services
from fleet.contracts.container_demands import Demand, demands
from fleet.contracts.container_spec import ContainerSpec
from fleet.policy import ContainerPolicy, HostPolicy

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "policy.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def read(path: Path) -> ContainerPolicy:
    return policy.load(path, required=True).containers


def test_where_there_is_no_file_nothing_is_granted(tmp_path: Path) -> None:
    absent = tmp_path / "policy.toml"
    assert policy.load(absent, required=False) == HostPolicy()
    assert not policy.load(absent, required=False).containers.privileged
    with pytest.raises(errors.SettingsInvalid, match="no such file"):
        policy.load(absent, required=True)


def test_an_unknown_key_is_named_with_the_nearest_one(write: Write) -> None:
    with pytest.raises(errors.SettingsInvalid, match=r"containers\.capabilites.*did you mean 'capabilities'"):
        read(write('[containers]\ncapabilites = ["NET_ADMIN"]'))
    with pytest.raises(errors.SettingsInvalid, match=r"container: there is no such key, did you mean 'containers'"):
        read(write("[container]\nprivileged = true"))
    with pytest.raises(errors.SettingsInvalid, match=r"binds\.0\.readonly: .*did you mean 'read_only'"):
        read(write('[containers]\nbinds = [{ source = "/srv", readonly = true }]'))


@pytest.mark.parametrize(
    "line",
    [
        'privileged = "yes"',
        "privileged = 1",
        'manage = "some"',
        'capabilities = "NET_ADMIN"',
        'binds = ["/srv"]',
        'binds = [{ source = "srv" }]',
        'namespaces = ["host"]',
        'namespaces = ["pid:*"]',
        'devices = ["ttyUSB0"]',
        "sysctls = [7]",
        "not toml",
    ],
)
def test_a_value_that_no_policy_has_is_refused(write: Write, line: str) -> None:
    with pytest.raises(errors.SettingsInvalid, match=re.escape("policy.toml")):
        read(write(f"[containers]\n{line}"))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(write: Write, mode: int) -> None:
    path = write("[containers]\nprivileged = true")
    path.chmod(mode)
    with pytest.raises(errors.SettingsInvalid, match=r"may change it.*chmod go-w"):
        read(path)


def test_a_file_in_a_directory_that_others_may_write_is_refused(write: Write) -> None:
    path = write("[containers]\nprivileged = true")
    path.parent.chmod(0o777)
    with pytest.raises(errors.SettingsInvalid, match="may change its directory"):
        read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_a_file_of_somebody_else_is_refused(write: Write) -> None:
    path = write("[containers]\nprivileged = true")
    os.chown(path, 65534, 65534)
    with pytest.raises(errors.SettingsInvalid, match="others than root"):
        read(path)


def test_what_lies_in_a_directory_that_containers_may_write_cannot_be_granted(write: Write) -> None:
    grants = '[containers]\nbinds = [{{ source = "/srv"{} }}, {{ source = "/srv/data" }}]'
    with pytest.raises(errors.SettingsInvalid, match="/srv/data lies in /srv, which containers may write"):
        read(write(grants.format("")))
    assert len(read(write(grants.format(", read_only = true"))).binds) == 2


def test_a_grant_to_read_is_no_grant_to_write() -> None:
    reading = ContainerPolicy.model_validate({"binds": [{"source": "/srv", "read_only": True}]})
    assert reading.grants(Demand("binds.0", "binds", "/srv", read_only=True))
    assert not reading.grants(Demand("binds.0", "binds", "/srv"))
    assert not reading.grants(Demand("binds.0", "binds", "/srv/data", read_only=True))


def test_all_capabilities_are_each_of_them() -> None:
    assert ContainerPolicy(capabilities=("all",)).grants(Demand("cap_add.0", "capabilities", "SYS_ADMIN"))
    assert not ContainerPolicy(capabilities=("cap_sys_admin",)).grants(Demand("cap_add.0", "capabilities", "ALL"))


def test_every_line_that_a_refusal_names_grants_what_was_refused(write: Write) -> None:
    spec = ContainerSpec.model_validate(
        {
            "image": "x",
            "privileged": True,
            "cap_add": ["cap_sys_admin"],
            "binds": [{"source": "/srv/a b", "target": "/a"}, {"source": "/srv/c", "target": "/c", "read_only": True}],
            "devices": [{"source": "/dev/kmsg"}],
            "gpus": "all",
            "network_mode": "host",
            "pid_mode": "container:web",
            "ipc_mode": "host",
            "uts_mode": "host",
            "userns_mode": "host",
            "cgroupns_mode": "host",
            "security_opt": ["seccomp:unconfined"],
            "sysctls": {"net.core.somaxconn": "1024"},
            "runtime": "runsc",
            "cgroup_parent": "/batch",
            "volumes": [{"name": "vol", "target": "/v", "driver": "nfs", "driver_options": {"o": "x"}}],
            "volumes_from": ["web:ro"],
        }
    )
    found = demands(spec)
    assert len(found) == 18
    for demand in found:
        assert read(write(f"[containers]\n{demand.entry}")).grants(demand), demand
        assert not ContainerPolicy().grants(demand)


def test_the_example_is_all_commented_out_and_every_line_of_it_is_a_policy() -> None:
    text = services.config_file("host-policy.example.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == {"containers": {}, "shell": {}}
    body = text[text.index("[containers]") :]
    uncommented = re.sub(r"^# (?=(\w+ = |  \{ source|\]|\[\[))", "", body, flags=re.MULTILINE)
    example = tomllib.loads(uncommented)
    assert set(example) == set(HostPolicy.model_fields)
    assert set(example["containers"]) == set(ContainerPolicy.model_fields)
    read = HostPolicy.model_validate(example)
    assert read.containers.binds[0].read_only
    assert read.commands
    assert read.files
    assert read.rules


def test_the_policy_beside_the_settings_file_is_found(tmp_path: Path, write: Write) -> None:
    config = tmp_path / "fleet.toml"
    config.write_text("")
    assert configuration.load(config=config).policy_file is None
    path = write("[containers]\nprivileged = true")
    found = configuration.load(config=config)
    assert found.policy_file == path
    assert policy.of_host(found).containers.privileged
    config.write_text('policy_file = "/elsewhere/policy.toml"')
    with pytest.raises(errors.SettingsInvalid, match=r"/elsewhere/policy\.toml: there is no such file"):
        policy.of_host(configuration.load(config=config))
