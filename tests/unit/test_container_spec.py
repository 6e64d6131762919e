"""The spec of a container: typed, strict, small, and the same whichever way it is written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors
from fleet.contracts import Contract, Reply, Request, Risk
from fleet.contracts.container_demands import DEFAULT_CAPABILITIES, SAFE_SYSCTLS, demands
from fleet.contracts.container_spec import LARGEST_BYTES, ContainerSpec
from fleet.contracts.quantities import parse_bytes, parse_seconds


class _Made(Request):
    spec: ContainerSpec


MAKE = Contract(name="fleet.x", summary="X.", request=_Made, reply=Reply, risk=Risk.READS, idempotent=True)


def spec(**fields: Any) -> ContainerSpec:
    return MAKE.parse({"spec": {"image": "busybox", **fields}}).spec


def problems(**fields: Any) -> dict[str, str]:
    with pytest.raises(errors.InvalidArguments) as caught:
        spec(**fields)
    return caught.value.fields


def test_sizes_and_durations_are_numbers_or_what_people_write() -> None:
    written = spec(memory="512m", log={"max_size": "1.5MiB"}, stop_timeout="1m30s", health_check={"interval": "500ms"})
    assert written.memory == 512 * 1024**2
    assert written.log.max_size == 1536 * 1024
    assert written.stop_timeout == 90
    assert written.health_check is not None
    assert written.health_check.interval == 0.5
    assert written == spec(
        memory=536_870_912, log={"max_size": 1_572_864}, stop_timeout=90, health_check={"interval": 0.5}
    )


@pytest.mark.parametrize("text", ["", "m", "-1m", "5x", "1e3", "5 0m", "١m", "1" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "5x", "1h 5", "1m30", "inf", "1s" * 2 + "x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_seconds(text)


@given(st.integers(0, 2**62))
def test_bytes_written_as_text_stay_the_same(number: int) -> None:
    assert parse_bytes(str(number)) == number


def test_true_is_no_number() -> None:
    assert set(problems(memory=True, pids="x")) == {"spec.memory", "spec.pids"}


def test_the_digest_does_not_depend_on_how_a_spec_is_written() -> None:
    short = spec(memory="512m")
    long = spec(memory=536_870_912, environment={}, privileged=False, restart="no", log={"driver": "json-file"})
    assert short.digest() == long.digest()
    assert len(short.digest()) == 32
    assert short.digest() != spec(memory="513m").digest()


def test_64_kib_are_the_most() -> None:
    room = LARGEST_BYTES - len(spec(environment={"A": ""}).canonical())
    assert len(spec(environment={"A": "x" * room}).canonical()) == LARGEST_BYTES
    assert problems(environment={"A": "x" * (room + 1)}) == {"spec": "is 65,537 bytes as JSON; 65,536 are the most"}


def test_2000_labels_are_too_many() -> None:
    assert "256" in problems(labels={f"l{number}": "" for number in range(2000)})["spec.labels"]


@pytest.mark.parametrize("name", ["a/b", "/web", "../web", "a", "-web", "web\n", "ẃeb", "w" * 129, ""])
def test_a_name_that_the_engine_would_not_take_or_reads_as_a_path_is_refused(name: str) -> None:
    assert "is no name" in problems(name=name)["spec.name"]


@pytest.mark.parametrize("image", ["", " busybox", "-x", "bus ybox", "busybox\n", "busybox;id", "$(id)", "b" * 600])
def test_what_is_no_image_is_refused(image: str) -> None:
    assert "is no image" in problems(image=image)["spec.image"]


@pytest.mark.parametrize(
    "image", ["busybox", "localhost:5000/a/b:1.2", "[::1]:5000/a@sha256:" + "0" * 64, "sha256:" + "0" * 64]
)
def test_every_form_of_an_image_is_taken(image: str) -> None:
    assert spec(image=image).image == image


def test_fleets_own_labels_are_refused() -> None:
    assert "fleet.run" in problems(labels={"fleet.run": "x"})["spec.labels"]
    assert spec(labels={"fleetwood": "x"}).labels == {"fleetwood": "x"}


@pytest.mark.parametrize("target", ["", "/", "//", "/.", "data", "/a/../etc", "/a/..", "/a\0b"])
def test_what_is_no_place_in_a_container_is_refused(target: str) -> None:
    assert "is no place" in problems(volumes=[{"name": "vol", "target": target}])["spec.volumes.0.target"]


def test_a_place_can_be_taken_once() -> None:
    two = {"volumes": [{"name": "vol", "target": "/data/"}], "tmpfs": [{"target": "//data/."}]}
    assert problems(**two) == {"spec": "mounts more than one thing at /data"}
    secret: dict[str, Any] = {"secrets": [{"name": "db"}]}
    assert "/run/secrets" in problems(tmpfs=[{"target": "/run/secrets"}], **secret)["spec"]
    assert "where the secrets lie" in problems(tmpfs=[{"target": "/run/secrets/db"}], **secret)["spec"]
    assert "the same file" in problems(secrets=[{"name": "a", "file": "x"}, {"name": "b", "file": "x"}])["spec"]


def test_characters_that_no_program_can_be_given_are_refused() -> None:
    assert set(problems(command=["a\0"], environment={"A": "b\0"})) == {"spec.command.0", "spec.environment.A"}
    assert set(problems(environment={"A": "\ud800"})) == {"spec.environment.A"}
    assert "no name of a variable" in problems(environment={"A=B": "x"})["spec.environment"]


@pytest.mark.parametrize(
    "check",
    [
        {"test": []},
        {"test": ["NONE"]},
        {"test": ["true"]},
        {"test": ["CMD"]},
        {"test": ["CMD-SHELL", "a", "b"]},
        {"disabled": True, "test": "true"},
        {"interval": 0},
    ],
)
def test_a_health_check_that_says_nothing_clear_is_refused(check: dict[str, Any]) -> None:
    assert problems(health_check=check)


def test_a_line_is_a_health_check_of_the_shell() -> None:
    written = spec(health_check={"test": "curl -f localhost"}).health_check
    assert written is not None
    assert written.test == ("CMD-SHELL", "curl -f localhost")


@pytest.mark.parametrize("restart", ["never", "on-failure:", "on-failure:-1", "always ", "on-failure:99999"])
def test_a_restart_policy_that_docker_does_not_have_is_refused(restart: str) -> None:
    assert problems(restart=restart)


@pytest.mark.parametrize("networks", [["host"], ["default"], ["none", "a"], ["a", "a"], ["container:web"], ["a/b"]])
def test_networks_are_networks(networks: list[str]) -> None:
    assert any(field.startswith("spec.networks") for field in problems(networks=networks))


def test_anothers_network_leaves_no_room_for_ports() -> None:
    assert "network_mode" in problems(network_mode="host", ports=[{"container_port": 80}])["spec"]


@pytest.mark.parametrize(
    "mode", ["HOST", " host", "host ", "container:", "container:a/b", "container:web,host", "ns:/x"]
)
def test_modes_are_the_engines_own_words(mode: str) -> None:
    for kind in ("network", "pid", "ipc", "uts", "userns", "cgroupns"):
        assert f"spec.{kind}_mode" in problems(**{f"{kind}_mode": mode})


def test_what_every_container_has_anyway_demands_nothing() -> None:
    plain = spec(
        cap_add=sorted(DEFAULT_CAPABILITIES),
        cap_drop=["ALL"],
        sysctls=dict.fromkeys(SAFE_SYSCTLS, "1"),
        security_opt=["no-new-privileges:true"],
        ipc_mode="private",
        cgroupns_mode="private",
        volumes=[{"name": "vol", "target": "/v", "driver": "local"}],
    )
    assert demands(plain) == ()


@pytest.mark.parametrize("written", ["SYS_ADMIN", "sys_admin", "CAP_SYS_ADMIN", "cap_sys_admin"])
def test_a_capability_is_the_same_in_every_spelling(written: str) -> None:
    (demand,) = demands(spec(cap_add=[written]))
    assert (demand.field, demand.entry) == ("cap_add.0", 'capabilities = ["SYS_ADMIN"]')


@pytest.mark.parametrize("written", ["no-new-privileges:false", "no-new-privileges=false", "seccomp:unconfined"])
def test_a_security_option_that_gives_power_is_demanded_in_both_forms(written: str) -> None:
    (demand,) = demands(spec(security_opt=[written]))
    assert demand.value == written.replace(":", "=")


def test_a_field_that_no_part_has_is_named_with_its_own_nearest_word() -> None:
    fields = problems(
        ports=[{"container_port": 80, "HostIP": "::"}], volumes=[{"name": "vol", "target": "/v", "rw": 1}]
    )
    assert "did you mean 'host_ip'" in fields["spec.ports.0.HostIP"]
    assert "no such field" in fields["spec.volumes.0.rw"]
