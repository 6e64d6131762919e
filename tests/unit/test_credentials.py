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
import trustme
from pydantic import SecretStr

from fleet import credentials, errors
from fleet.contracts.credentials import HostCredential, PrincipalCredential
from fleet.settings import Settings
from tests import factories

CREDENTIAL = HostCredential(
    host="edge-7",
    broker_url=SecretStr("rediss://h-edge-7:s3cret@broker:6379/0"),
    private_key=factories.key("edge-7").secret(),
    credential=factories.ring().issue(factories.identity("edge-7", labels={"env": "prod"})),
    trust=factories.statement(),
    labels={"env": "prod"},
    enrolled_at=datetime(2026, 1, 2, tzinfo=UTC),
)
PRINCIPAL = PrincipalCredential(
    name="alice",
    broker_url=SecretStr("rediss://p-alice:s3cret@broker:6379/0"),
    private_key=factories.key("p:alice").secret(),
    credential="a.b.c",
    trust=factories.statement(),
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


def test_passwords_and_private_keys_show_in_the_file_alone(path: Path) -> None:
    with_the_next = CREDENTIAL.model_copy(
        update={"offered_key": factories.key("next").secret(), "offered_password": SecretStr("n3xt")}
    )
    credentials.save(path, with_the_next)
    written, shown = path.read_text(), repr(with_the_next) + str(with_the_next.model_dump())
    for secret in ("s3cret", "n3xt", *(factories.key(name).secret().get_secret_value() for name in ("edge-7", "next"))):
        assert secret in written
        assert secret not in shown


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
        b"fleet.0123",
        b'{"v": 2, "host": "edge-7"}',
        b'{"host": "edge-7", "admin": true}',
        CREDENTIAL.model_dump_json().replace('"v":2', '"v":1').encode(),
        CREDENTIAL.model_dump_json().replace('"v":2', '"v":2,"admin":true').encode(),
    ],
)
def test_one_that_is_no_credential_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(errors.CredentialUnusable, match="is not a credential of this version of Fleet; enroll again"):
        credentials.load(path, host="edge-7")


def test_one_that_is_no_text_is_refused(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(errors.CredentialUnusable, match="is no text; restore it from its backup"):
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


def test_a_principals_file_is_found_again_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "principals" / "alice.json"
    credentials.save_principal(path, PRINCIPAL)
    assert credentials.load_principal(path, name="alice") == PRINCIPAL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "s3cret" in path.read_text()
    assert "s3cret" not in repr(PRINCIPAL)


def test_a_missing_principals_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(errors.CredentialUnusable) as caught:
        credentials.load_principal(tmp_path / "alice.json", name="alice")
    assert str(caught.value) == (
        f"principal 'alice' has no credential at {tmp_path / 'alice.json'}, and nothing is pushed without one; "
        "`fleet up` makes one with a fleet on this machine; else `fleet principal create alice --level supervised` "
        "makes it where the control plane runs: copy the file here, or name it by FLEET_PRINCIPAL_FILE"
    )


@pytest.mark.parametrize("content", [b"", b"{}", CREDENTIAL.model_dump_json().encode()])
def test_a_principals_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "alice.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(errors.CredentialUnusable, match="is not one of this version of Fleet; `fleet principal rotate"):
        credentials.load_principal(path, name="alice")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_principals_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "alice.json"
    credentials.save_principal(path, PRINCIPAL)
    path.chmod(mode)
    with pytest.raises(errors.CredentialUnusable, match=f"others can read it .* chmod 600 {path}"):
        credentials.load_principal(path, name="alice")


def test_the_brokers_ca_is_kept_and_one_in_the_settings_comes_before_it(path: Path, tmp_path: Path) -> None:
    of_the_token, newer = (trustme.CA().cert_pem.bytes().decode() for _ in range(2))
    credentials.save(path, CREDENTIAL.model_copy(update={"broker_ca": of_the_token}))
    loaded = credentials.load(path, host="edge-7")
    assert loaded.broker_ca == of_the_token
    assert credentials.broker(loaded, Settings()).ca == of_the_token
    (tmp_path / "ca.pem").write_text(newer)
    assert credentials.broker(loaded, Settings(broker_ca=tmp_path / "ca.pem")).ca == newer
    assert credentials.broker(CREDENTIAL, Settings()).ca is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"broker_url": SecretStr("redis://:s3cret@broker:6379/0")}, "in plaintext to another machine"),
        ({"broker_url": SecretStr("rediss://:s3cret@broker/0?ssl_cert_reqs=none")}, "has options after the ?"),
        ({"broker_ca": "no certificate"}, "comes with a CA that has no certificate in it"),
    ],
)
def test_one_for_a_broker_that_is_not_connected_to_is_refused(
    path: Path, changed: dict[str, object], said: str
) -> None:
    credentials.save(path, CREDENTIAL.model_copy(update=changed))
    with pytest.raises(errors.CredentialUnusable) as caught:
        credentials.load(path, host="edge-7")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "enroll again with --force" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_url_without_a_login_says_where_a_host_finds_its_broker(tmp_path: Path) -> None:
    def settings(url: str) -> Settings:
        return Settings(state_dir=tmp_path, broker_url=url)  # type: ignore[arg-type]

    moved = credentials.broker(CREDENTIAL, settings("rediss://moved.example:6380/0"))
    assert moved.url == "rediss://h-edge-7:s3cret@moved.example:6380/0"
    for url in ("rediss://control:word@moved.example/0", "rediss://control@moved.example/0"):
        assert credentials.broker(CREDENTIAL, settings(url)).host == "broker", "that is the control plane's setting"
    assert credentials.broker(PRINCIPAL, settings("rediss://moved.example/0")).host == "broker"
