"""`fleet file` as people run it, against two hosts that grant a directory each."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet import names
from fleet.contracts.files import LARGEST_PUT
from tests.integration.cli.conftest import Cli
from tests.integration.cli.test_terminal import on_terminal
from tests.services.answering import answering
from tests.services.broker import Broker

HOSTS = ("edge-7", "edge-8")


@pytest.fixture
def roots(cli: Cli, broker: Broker, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """What edge-7 and edge-8 grant: one directory, as if it were the same path on two machines."""
    with ExitStack() as stack:
        found = {}
        for host in HOSTS:
            found[host] = tmp_path / "shared"
            found[host].mkdir(exist_ok=True)
            stack.enter_context(answering(broker, host, found[host], most_bytes=LARGEST_PUT))
        yield found


@pytest.fixture
def root(roots: dict[str, Path]) -> Path:
    return roots["edge-7"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    made = tmp_path / "here"
    made.mkdir()
    return made


def test_a_directory_is_a_table_or_json(cli: Cli, root: Path) -> None:
    (root / "a.conf").write_bytes(b"12345")
    (root / "a.conf").chmod(0o640)
    (root / "sub").mkdir(mode=0o755)
    (root / "to").symlink_to("a.conf")
    (root / "bad\nname\x1b[2J").touch()
    done = cli("file", "ls", str(root), "--host", "edge-7")
    assert (done.code, done.err) == (0, "")
    head, *lines = done.out.splitlines()
    assert head.split() == ["HOST", "MODE", "OWNER", "GROUP", "SIZE", "AGE", "NAME"]
    assert [line.split()[1] for line in lines] == ["-rw-r-----", "-rw-r--r--", "drwxr-xr-x", "lrwxrwxrwx"]
    assert lines[1].endswith("bad\\x0aname\\x1b[2J")
    assert lines[3].endswith("to → a.conf")
    rows = cli("file", "ls", str(root), "--host", "edge-7", "-o", "json").json
    assert rows[0]["path"] == f"{root}/a.conf"
    assert (rows[0]["kind"], rows[0]["size"], rows[0]["mode"], rows[3]["target"]) == ("file", 5, "0640", "a.conf")
    both = cli("file", "ls", str(root / "sub"), "--host", "edge-7", "--host", "edge-8")
    assert (both.code, both.err) == (0, "an empty directory\n")


def test_a_file_is_read_into_a_file_a_directory_or_the_output(cli: Cli, root: Path, here: Path) -> None:
    (root / "app.conf").write_bytes(b"one\n\xff\x1b[2J")
    (root / "app.conf").chmod(0o440)
    path = str(root / "app.conf")
    done = cli("file", "get", path, "--host", "edge-7", cwd=here)
    assert done.code == 0, done.err
    assert "app.conf" in done.out
    assert (here / "app.conf").read_bytes() == b"one\n\xff\x1b[2J"
    assert stat.S_IMODE((here / "app.conf").stat().st_mode) == 0o640
    again = cli("file", "get", path, "--host", "edge-7", cwd=here)
    assert again.code == 2
    assert "app.conf is there already; name another file with -O, or overwrite it with --force" in again.error
    [record] = cli("file", "get", path, "--host", "edge-7", "--force", "--json", cwd=here).json
    assert (record["state"], record["file"], record["size"], record["mode"]) == ("succeeded", "app.conf", 9, "0440")
    assert [each.name for each in here.iterdir()] == ["app.conf"]
    assert cli("file", "get", path, "--host", "edge-7", "-O", "sub", cwd=here).code == 0
    assert (here / "sub").is_file()


def test_what_goes_to_the_output_moves_no_terminal(cli: Cli, root: Path) -> None:
    (root / "app.conf").write_bytes(b"one\n\x1b[2J\ttwo\xff\n")
    words = cli.command("file", "get", str(root / "app.conf"), "--host", "edge-7", "-O", "-")
    piped = subprocess.run(words, check=True, capture_output=True, env=cli.environ())
    assert (piped.stdout, piped.stderr) == (b"one\n\x1b[2J\ttwo\xff\n", b"")
    code, said = on_terminal(cli, "file", "get", str(root / "app.conf"), "--host", "edge-7", "-O", "-")
    assert code == 0
    assert "one\r\n\\x1b[2J\ttwo\\xff\r\n" in said


def test_several_hosts_give_a_directory_of_files(cli: Cli, root: Path, here: Path) -> None:
    (root / "f").write_bytes(b"x")
    for words in ((), ("-O", "-")):
        refused = cli("file", "get", str(root / "f"), "--all", *words, cwd=here)
        assert refused.code == 2
        assert "name a directory with -O" in refused.error
    done = cli("file", "get", str(root / "f"), "--all", "-O", "got", cwd=here)
    assert done.code == 0, done.err
    assert sorted(each.name for each in (here / "got").iterdir()) == ["edge-7", "edge-8"]
    (here / "file").touch()
    assert "is no directory" in cli("file", "get", str(root / "f"), "--all", "-O", "file", cwd=here).error


def test_a_file_is_written_from_a_file_or_the_input(cli: Cli, root: Path, here: Path) -> None:
    (here / "new").write_bytes(b"\0\xff")
    done = cli("file", "put", "new", str(root / "made"), "--host", "edge-7", "--mode", "0600", cwd=here)
    assert (done.code, done.err) == (0, "")
    assert "made  2B  0600" in done.out
    assert (root / "made").read_bytes() == b"\0\xff"
    replaced = cli("file", "put", "-", str(root / "made"), "--host", "edge-7", stdin="hello", cwd=here)
    assert "replaced  5B  0600" in replaced.out
    assert (root / "made").read_text() == "hello"
    whole = cli("file", "put", "-", str(root / "made"), "--host", "edge-7", "--json", stdin="hello", cwd=here).json
    [run] = whole["runs"]
    assert run["reply"]["replaced_sha256"] == run["reply"]["sha256"]
    unknown = cli("file", "put", "-", str(root / "x"), "--host", "edge-7", "--owner", "no_such_user", cwd=here)
    assert unknown.code == 1
    assert "owner: this host has no user named 'no_such_user'" in unknown.out


def test_what_is_wrong_is_said_before_anything_is_pushed(cli: Cli, root: Path, here: Path, broker: Broker) -> None:
    (here / "large").write_bytes(b"x" * (LARGEST_PUT + 1))
    for words, problem in (
        (("put", "large", str(root / "f"), "--host", "edge-7"), "it has 131,073 bytes; 131,072 are the most"),
        (("put", "gone", str(root / "f"), "--host", "edge-7"), "gone: cannot be read (No such file or directory)"),
        (("put", "-", "relative", "--host", "edge-7"), "path: "),
        (("put", "-", f"{root}/../f", "--host", "edge-7"), "without '.', '..'"),
        (("put", "-", str(root / "f"), "--host", "edge-7", "--mode", "4755"), "mode: "),
        (("put", "-", str(root / "f")), "no host is selected"),
        (("get", str(root / "f")), "no host is selected"),
        (("ls", "relative", "--host", "edge-7"), "path: "),
    ):
        done = cli("file", *words, cwd=here)
        assert done.code == 2, words
        assert problem in done.error
    piped = cli("file", "put", "-", str(root / "f"), "--host", "edge-7", cwd=here, stdin="x" * (LARGEST_PUT + 1))
    assert "-: it is too large; 131,072 are the most" in piped.error
    with broker.connect() as client:
        assert not client.exists(names.reports("p:alice"))


def test_what_a_host_refuses_is_the_error_of_one_and_part_of_the_answer_of_many(
    cli: Cli, root: Path, here: Path
) -> None:
    done = cli("file", "get", "/etc/hostname", "--host", "edge-7", "-O", "-")
    assert (done.code, done.out) == (1, "")
    assert f"it does not lie below {root}" in done.error
    many = cli("file", "ls", str(root / "gone"), "--all")
    assert many.code == 1
    assert many.err.count("No such file or directory") == 2
    os.mkfifo(root / "fifo")
    lines = cli("file", "get", str(root / "fifo"), "--all", "-O", str(here / "x"), "-o", "jsonl").out.splitlines()
    assert {json.loads(line)["error"]["kind"] for line in lines} == {"not_a_file"}
    assert not (here / "x").exists()


def test_the_largest_file_that_may_be_put_travels(cli: Cli, root: Path, here: Path) -> None:
    (here / "large").write_bytes(os.urandom(LARGEST_PUT))
    done = cli("file", "put", "large", str(root / "large"), "--all", cwd=here)
    assert done.code == 0, done.err
    assert (root / "large").read_bytes() == (here / "large").read_bytes()
    assert cli("file", "get", str(root / "large"), "--host", "edge-7", "-O", "back", cwd=here).code == 0
    assert (here / "back").read_bytes() == (here / "large").read_bytes()
