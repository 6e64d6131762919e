"""Flags of `docker run` become a spec, and what they cannot mean is said."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from fleet import errors
from fleet.cli.container import flags
from fleet.cli.container.creating import create
from fleet.contracts import containers


def given(*words: str) -> tuple[dict[str, Any], str | None, tuple[str, ...]]:
    """Return what click makes of a command line."""
    context = create.make_context("create", [*words])
    found = dict(context.params)
    return found, found["image"], found["command"]


def spec(*words: str) -> dict[str, Any]:
    found, image, command = given(*words)
    return flags.spec(image, command, found)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (("-p", "80"), "ports", [{"container_port": 80}]),
        (("-p", "8080:80"), "ports", [{"container_port": 80, "host_port": 8080}]),
        (("-p", "53:53/udp"), "ports", [{"container_port": 53, "host_port": 53, "protocol": "udp"}]),
        (
            ("-p", "127.0.0.1:8080:80"),
            "ports",
            [{"container_port": 80, "host_port": 8080, "host_ip": "127.0.0.1"}],
        ),
        (("-p", "[::1]:8080:80"), "ports", [{"container_port": 80, "host_port": 8080, "host_ip": "::1"}]),
        (("-p", "127.0.0.1::80"), "ports", [{"container_port": 80, "host_ip": "127.0.0.1"}]),
        (("-e", "A=1=2", "-e", "B="), "environment", {"A": "1=2", "B": ""}),
        (("--label", "app=shop"), "labels", {"app": "shop"}),
        (("-v", "data:/data"), "volumes", [{"name": "data", "target": "/data"}]),
        (("-v", "data:/data:ro"), "volumes", [{"name": "data", "target": "/data", "read_only": True}]),
        (("-v", "/srv:/data:rw"), "binds", [{"source": "/srv", "target": "/data"}]),
        (("--tmpfs", "/tmp:size=1m,mode=700"), "tmpfs", [{"target": "/tmp", "size": "1m", "mode": 0o700}]),
        (("--network", "shop", "--network", "bridge"), "networks", ["shop", "bridge"]),
        (("--network", "host"), "network_mode", "host"),
        (
            ("--secret", "key", "--secret", "db:password"),
            "secrets",
            [{"name": "key"}, {"name": "db", "file": "password"}],
        ),
        (("--entrypoint", "/bin/sh"), "entrypoint", ["/bin/sh"]),
        (("--entrypoint", ""), "entrypoint", []),
        (("--add-host", "db:10.0.0.1"), "extra_hosts", {"db": "10.0.0.1"}),
        (("--ulimit", "nofile=10:20"), "ulimits", [{"name": "nofile", "soft": 10, "hard": 20}]),
        (("--ulimit", "core=unlimited"), "ulimits", [{"name": "core", "soft": -1}]),
        (("--device", "/dev/fuse"), "devices", [{"source": "/dev/fuse"}]),
        (("--device", "/dev/a:/dev/b:r"), "devices", [{"source": "/dev/a", "target": "/dev/b", "permissions": "r"}]),
        (("--gpus", "all"), "gpus", "all"),
        (("--gpus", "0,1"), "gpus", ["0", "1"]),
        (("--log-opt", "max-size=1m", "--log-opt", "max-file=2"), "log", {"max_size": "1m", "max_files": 2}),
        (("--health-cmd", "true", "--health-retries", "3"), "health_check", {"test": "true", "retries": 3}),
        (("--no-healthcheck",), "health_check", {"disabled": True}),
        (("--memory", "64m"), "memory", "64m"),
        (("--cpus", "1.5"), "cpus", 1.5),
        (("--pids-limit", "100"), "pids", 100),
        (("--init",), "init", True),
        (("--cap-drop", "ALL"), "cap_drop", ["ALL"]),
        (("--sysctl", "net.ipv4.ip_forward=1"), "sysctls", {"net.ipv4.ip_forward": "1"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_flag_is_a_field(words: tuple[str, ...], field: str, value: Any) -> None:
    found = spec(*words, "busybox")
    assert found == {"image": "busybox", field: value}
    containers.CREATE.parse({"spec": found})


def test_after_the_image_everything_is_the_containers() -> None:
    assert spec("--name", "web", "busybox", "sh", "-c", "echo --name x", "-e", "y") == {
        "image": "busybox",
        "name": "web",
        "command": ["sh", "-c", "echo --name x", "-e", "y"],
    }


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_file_says_the_same_and_flags_lie_over_it(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"web.{form}"
    said = {"image": "busybox", "environment": {"A": "1", "B": "2"}, "ports": [{"container_port": 80}], "memory": "64m"}
    file.write_text(yaml.safe_dump(said) if form == "yaml" else json.dumps(said))
    assert spec("-f", str(file), "-e", "B=3", "-p", "81", "--memory", "128m") == {
        "image": "busybox",
        "environment": {"A": "1", "B": "3"},
        "ports": [{"container_port": 80}, {"container_port": 81}],
        "memory": "128m",
    }


def test_a_file_of_variables_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# one\nA=1\n\nB= two words \n")
    assert spec("--env-file", str(file), "-e", "A=3", "busybox")["environment"] == {"A": "3", "B": " two words"}
    file.write_text("A = 1\n")
    with pytest.raises(click.UsageError, match="write NAME=VALUE"):
        spec("--env-file", str(file), "busybox")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no image"),
        (("-f", "/nonexistent"), "cannot be read"),
        (("-p", "http", "x"), "'http' is no number"),
        (("-e", "HOME", "x"), "write NAME=VALUE; Fleet passes nothing of this machine's on"),
        (("-v", "/srv", "x"), "write NAME:PATH"),
        (("-v", "./here:/data", "x"), "is written as an absolute path"),
        (("-v", "data:/data:z", "x"), "write NAME:PATH"),
        (("--tmpfs", "/t:exec", "x"), "neither size=SIZE nor mode=OCTAL"),
        (("--network", "host", "--network", "shop", "x"), "stands alone"),
        (("--ulimit", "nofile", "x"), "write NAME=SOFT"),
        (("--no-healthcheck", "--health-cmd", "true", "x"), "takes no other"),
        (("--add-host", "db", "x"), "write NAME:ADDRESS"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_flag_cannot_mean_is_said_with_the_way_out(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        spec(*words)
    assert says in caught.value.message


@pytest.mark.parametrize("text", ["- a list", "just text", "{", "a: [1"])
def test_a_file_that_is_no_spec_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(text)
    with pytest.raises(click.UsageError, match=r"web\.yaml"):
        spec("-f", str(file))


def test_an_option_of_the_log_that_there_is_not_is_refused() -> None:
    with pytest.raises(errors.InvalidValue, match="max-size and max-file can"):
        spec("--log-opt", "mode=non-blocking", "busybox")
