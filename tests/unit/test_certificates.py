"""Certificates that Fleet makes for a broker: a strict client takes them for their names, and keys stay private."""

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from fleet import authority, certificates


def handshake(directory: Path, name: str, *, ca: Path | None = None) -> None:
    """Let a strict client speak to a server of that directory; raises what the client raises."""
    near, far = socket.socketpair()
    offered = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    offered.load_cert_chain(directory / "server.pem", directory / "server.key")

    def serve() -> None:
        try:
            offered.wrap_socket(far, server_side=True).close()
        except (ssl.SSLError, OSError):
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    strict = ssl.create_default_context(cafile=str(ca or directory / "ca.pem"))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's default from 3.13 on
    try:
        strict.wrap_socket(near, server_hostname=name).close()
    finally:
        near.close()
        thread.join()


def test_a_strict_client_takes_them_for_their_names_and_no_other(tmp_path: Path) -> None:
    assert certificates.main([str(tmp_path), "broker.example", "127.0.0.1", "fd00::7"]) == 0
    for name in ("broker.example", "127.0.0.1", "fd00::7"):
        handshake(tmp_path, name)
    for name in ("other.example", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(tmp_path, name)


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    certificates.main([str(tmp_path / "made"), "broker"])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "made").iterdir()}
    assert modes.pop("ca.key") == modes.pop("server.key") == 0
    assert sorted(modes) == ["ca.pem", "server.pem"]


def test_a_second_run_keeps_the_ca(tmp_path: Path) -> None:
    certificates.main([str(tmp_path), "broker.example"])
    ca, server = (tmp_path / "ca.pem").read_text(), (tmp_path / "server.pem").read_text()
    certificates.main([str(tmp_path), "broker.example"])
    assert (tmp_path / "ca.pem").read_text() == ca
    assert (tmp_path / "server.pem").read_text() != server
    handshake(tmp_path, "broker.example")


def test_two_cas_are_not_mixed_up(tmp_path: Path) -> None:
    for name in ("old", "new"):
        certificates.main([str(tmp_path / name), "broker.example"])
    both = tmp_path / "both.pem"
    both.write_text((tmp_path / "old" / "ca.pem").read_text() + (tmp_path / "new" / "ca.pem").read_text())
    for name in ("old", "new"):
        handshake(tmp_path / name, "broker.example", ca=both)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path / "old", "broker.example", ca=tmp_path / "new" / "ca.pem")


def test_the_ca_is_one_that_a_token_has_room_for(tmp_path: Path) -> None:
    certificates.main([str(tmp_path), "broker.example"])
    pem = authority.read(tmp_path / "ca.pem", field="broker_ca")
    assert len(authority.packed(pem)) < 600


def test_what_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert certificates.main([str(tmp_path / "file"), "broker"]) == 1
    (tmp_path / "ca.key").write_text("no key")
    (tmp_path / "ca.pem").write_text("no certificate")
    assert certificates.main([str(tmp_path), "broker"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line.startswith("fleet.certificates: error: ") for line in said)
