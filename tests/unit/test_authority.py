"""Certificates of a broker's CA: read from a file, carried as bytes, and refused where they are none."""

import ssl
from pathlib import Path

import pytest
import trustme

from fleet import authority, errors


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def pem(ca: trustme.CA) -> str:
    return ca.cert_pem.bytes().decode()


def leaf(ca: trustme.CA) -> str:
    return ca.issue_cert("broker").cert_chain_pems[0].bytes().decode()


def test_a_file_is_read_and_its_private_key_stays_where_it_is(ca: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"# mine\n" + ca.private_key_pem.bytes() + ca.cert_pem.bytes())
    assert authority.read(path, field="FLEET_BROKER_CA") == pem(ca)


def test_certificates_come_back_from_their_bytes(ca: trustme.CA) -> None:
    both = authority.checked(pem(ca) + pem(trustme.CA()))
    assert authority.unpacked(authority.packed(both)) == both
    assert both.count("BEGIN CERTIFICATE") == 2
    assert len(authority.packed(pem(ca))) < 700


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsInvalid) as caught:
        authority.read(tmp_path / "ca.pem", field="FLEET_BROKER_CA")
    assert str(caught.value) == (
        f"FLEET_BROKER_CA: '{tmp_path}/ca.pem' cannot be read (No such file or directory); "
        "name the file with the certificate of the broker's CA (PEM)"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no certificate in it"),
        (b"hello", "has no certificate in it"),
        (b"\x30\x82\x01\xcc\xff\xfe", "is no text, so no PEM file"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "that cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "that cannot be read"),
    ],
)
def test_a_file_that_is_no_pem_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(errors.SettingsInvalid) as caught:
        authority.read(path, field="FLEET_BROKER_CA")

    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsInvalid, match="Is a directory"):
        authority.read(tmp_path, field="FLEET_BROKER_CA")


def test_a_servers_certificate_is_no_ca_alone_or_beside_one(ca: trustme.CA) -> None:
    for text in (leaf(ca), pem(ca) + leaf(ca)):
        with pytest.raises(ValueError, match="no CA's"):
            authority.checked(text)


def test_a_bundle_does_not_fit_into_a_token() -> None:
    bundle = "".join(pem(trustme.CA()) for _ in range(20))
    with pytest.raises(ValueError, match="has 20 certificates in it, more than travel in a token"):
        authority.checked(bundle)


def test_bytes_that_are_no_certificate_are_refused(ca: trustme.CA) -> None:
    for der in (b"", b"x", ssl.PEM_cert_to_DER_cert(pem(ca))[:-1]):
        with pytest.raises(ValueError, match="cannot be read"):
            authority.unpacked(der)
