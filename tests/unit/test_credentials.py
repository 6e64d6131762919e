"""Credentials on disk: written whole or not at all, and refused where they cannot be trusted."""

import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from fleet import credentials, errors
from fleet.contracts.enrollment import Credential

CREDENTIAL = Credential(
    host="edge-7",
    broker_url=SecretStr("redis://:s3cret@broker:6379/0"),
    labels={"env": "prod"},
    enrolled_at=datetime(2026, 1, 2, tzinfo=UTC),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hosts" / "edge-7" / "credential.json"


def test_a_saved_credential_is_found_again_and_is_its_owners_alone(path: Path) -> None:
    credentials.save(path, CREDENTIAL)
    assert credentials.load(path, host="edge-7") == CREDENTIAL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_loose_umask_opens_nothing(path: Path) -> None:
    before = os.umask(0)
    try:
        credentials.save(path, CREDENTIAL)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_one_replaces_the_first_by_a_new_file(path: Path) -> None:
    credentials.save(path, CREDENTIAL)
    with path.open() as opened_before:
        credentials.save(path, CREDENTIAL.model_copy(update={"labels": {}}))
        assert '"env": "prod"' in opened_before.read(), "who reads the old one reads it whole"
    assert credentials.load(path, host="edge-7").labels == {}


def test_the_password_shows_in_the_file_alone(path: Path) -> None:
    credentials.save(path, CREDENTIAL)
    assert "s3cret" in path.read_text()
    assert "s3cret" not in repr(CREDENTIAL)


def test_a_missing_one_says_how_to_get_it(path: Path) -> None:
    with pytest.raises(errors.CredentialUnusable) as caught:
        credentials.load(path, host="edge-7")
    assert str(caught.value) == (
        f"host 'edge-7' has no credential at {path}; get a token with `fleet token create` where the control plane "
        "runs, then `fleet enroll TOKEN` here (or `fleet worker --token TOKEN`)"
    )


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_one_that_is_open_to_others_is_refused_with_the_command_that_mends_it(path: Path, mode: int) -> None:
    credentials.save(path, CREDENTIAL)
    path.chmod(mode)
    with pytest.raises(errors.CredentialUnusable) as caught:
        credentials.load(path, host="edge-7")
    assert str(caught.value) == f"credential {path}: others can read it (mode {mode:04o}); chmod 600 {path}"
    path.chmod(0o600)
    assert credentials.load(path, host="edge-7") == CREDENTIAL


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"fleet.0123",
        b'{"v": 2, "host": "edge-7"}',
        b'{"host": "edge-7", "admin": true}',
    ],
)
def test_one_that_is_no_credential_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(errors.CredentialUnusable, match="is not a credential of this version of Fleet; enroll again"):
        credentials.load(path, host="edge-7")


def test_another_hosts_is_refused(path: Path) -> None:
    credentials.save(path, CREDENTIAL)
    with pytest.raises(errors.CredentialUnusable, match="belongs to host 'edge-7', not 'edge-8'; use --host-id edge-7"):
        credentials.load(path, host="edge-8")


def test_a_directory_in_its_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(errors.CredentialUnusable, match="is not a file"):
        credentials.load(path, host="edge-7")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_one_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "credential.json"
    credentials.save(path, CREDENTIAL)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(errors.CredentialUnusable, match=r"cannot be read \(Permission denied\); run as its owner"):
            credentials.load(path, host="edge-7")
    finally:
        os.seteuid(0)


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    at.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("no file system can be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def test_a_full_disk_is_told_before_the_token_is_used_up_and_leaves_the_old_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8k") as disk:
        path = disk / "credential.json"
        credentials.save(path, CREDENTIAL)
        with pytest.raises(errors.LocalFault) as caught:
            credentials.rehearse(path)
        assert str(caught.value) == (
            f"credential {path}: cannot be written (No space left on device); mend that, or set another state "
            "directory; the token is not used up"
        )
        (disk / "filler").write_bytes(b"x" * 4096)
        with pytest.raises(errors.LocalFault, match=r"No space left on device.*create --host-id edge-7"):
            credentials.save(path, CREDENTIAL.model_copy(update={"labels": {}}))
        assert sorted(entry.name for entry in disk.iterdir()) == ["credential.json", "filler"]
        assert credentials.load(path, host="edge-7") == CREDENTIAL


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("a file where a directory is to be")
    path = tmp_path / "hosts" / "edge-7" / "credential.json"
    with pytest.raises(errors.LocalFault, match=f"credential {path}: cannot be written"):
        credentials.rehearse(path)
    with pytest.raises(errors.LocalFault, match=f"credential {path}: cannot be written"):
        credentials.save(path, CREDENTIAL)


def test_a_rehearsal_leaves_nothing_behind(path: Path) -> None:
    credentials.rehearse(path)
    assert list(path.parent.iterdir()) == []


def test_a_write_that_fails_half_way_leaves_the_old_one(path: Path) -> None:
    credentials.save(path, CREDENTIAL)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(errors.LocalFault, match="File too large"):
            credentials.save(path, CREDENTIAL.model_copy(update={"labels": {}}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert credentials.load(path, host="edge-7") == CREDENTIAL
    assert list(path.parent.iterdir()) == [path]
