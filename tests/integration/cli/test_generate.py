"""`fleet generate`: what it prints, and what it says where something is wrong."""

import json
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Cli

URL = "rediss://broker.example:6379/0"


def test_it_writes_a_directory_and_says_what_is_in_it(bare: Cli, tmp_path: Path) -> None:
    output = tmp_path / "edge 7"
    words = (
        "generate",
        "all",
        "--role",
        "host",
        "--host-id",
        "edge-7",
        "--registry-url",
        URL,
        "--output-dir",
        str(output),
    )
    done = bare(*words, "-o", "json")
    assert (done.code, done.err) == (0, "")
    listed = json.loads(done.out)
    assert {Path(each["path"]) for each in listed} == {path for path in output.rglob("*") if path.is_file()}
    assert all(each["bytes"] == Path(each["path"]).stat().st_size for each in listed)
    assert {each["name"] for each in listed} >= {
        "Dockerfile",
        "compose.yaml",
        "fleet-worker.service",
        "requirements.txt",
    }

    again = bare(*words)
    assert again.code == 0
    assert "compose.yaml" in again.out
    assert "what to do next stands at the top of each file" in again.err


def test_what_is_there_is_overwritten_only_where_that_was_asked_for(bare: Cli, tmp_path: Path) -> None:
    words = ("generate", "systemd", "--role", "control", "--output-dir", str(tmp_path))
    unit = tmp_path / "fleet-control.service"
    unit.write_text("mine")
    refused = bare(*words)
    assert refused.code == 4
    assert "fleet-control.service is there already, with another content; nothing was written" in refused.error
    assert unit.read_text() == "mine"
    assert bare(*words, "--force").code == 0
    assert "ExecStart" in unit.read_text()


def test_an_address_that_is_not_written_is_said_to_be_none(bare: Cli, tmp_path: Path) -> None:
    words = ("--role", "host", "--host-id", "edge-7", "--output-dir", str(tmp_path))
    done = bare("generate", "systemd", *words, "--registry-url", URL, "--no-registry")
    assert done.code == 0
    assert "--registry-url is in none of them" in done.err
    assert "broker.example" not in (tmp_path / "fleet-worker.service").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compose", "--role", "host"), "host id: None is missing"),
        (("systemd", "--role", "host", "--host-id", "Edge"), "host id: 'Edge' is not a host id"),
        (("systemd", "--role", "server"), "'server' is not one of"),
        (("compos", "--role", "control"), "did you mean 'compose'?"),
        (("compose", "--role", "control", "--registry-url", "redis://broker.example"), "registry URL: "),
        (
            ("compose", "--role", "control", "--registry-url", "rediss://:hunter2@broker.example"),
            "has a user or a password in it",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    bare: Cli, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = bare("generate", *words, "--output-dir", str(tmp_path / "out"))
    assert done.code == 2
    assert said in done.err
    assert "hunter2" not in done.err
    assert not (tmp_path / "out").exists()
