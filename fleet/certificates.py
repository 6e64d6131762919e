"""Certificates for a broker of one's own, for whoever has no CA to ask.

    python3 -m fleet.certificates DIRECTORY NAME…

makes a CA and a certificate that it signs for those host names and addresses. A second run on the same directory signs
anew with the CA that is there, so a certificate can be replaced and no host need hear of it. Whoever has `ca.key` can
pass for the broker: keep it elsewhere, or throw it away.
"""

import argparse
import ipaddress
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Nobody renews them by themselves, and the fleet stands still without.
LIFETIME = timedelta(days=3650)
#: A machine whose clock is behind takes them at once, too.
_BACKDATED = timedelta(days=1)
_NO_USE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


@dataclass(frozen=True)
class Signed:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def save(self, directory: Path, name: str) -> None:
        """Write `name`.pem and `name`.key; the key for its owner's eyes."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(directory / f"{name}.key", private, mode=0o600)
        _write(directory / f"{name}.pem", self.certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def authority() -> Signed:
    """Make a CA that signs for servers only."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Every CA has a name of its own: two of one name, beside each other, are mixed up.
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(f"Fleet broker CA {own.digest.hex()[:8]}")
    builder = (
        _builder(name, issuer=name, key=key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USE, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(own, critical=False)
    )
    return Signed(builder.sign(key, hashes.SHA256()), key)


def server(ca: Signed, names: Sequence[str]) -> Signed:
    """Make a certificate for a broker that is reached by those host names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(names[0][:64]), issuer=ca.certificate.subject, key=key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USE, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
    )
    return Signed(builder.sign(ca.key, hashes.SHA256()), key)


def load(directory: Path, name: str) -> Signed | None:
    """Return what `save` wrote, or None where either file is missing."""
    try:
        key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{directory / name}.key is not a key that this made")
    return Signed(certificate, key)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("fleet.certificates", description="Make a CA and a certificate for a broker.")
    parser.add_argument("directory", type=Path, help="where ca.pem, ca.key, server.pem and server.key go")
    parser.add_argument("names", nargs="+", metavar="name", help="host name or address by which the broker is reached")
    given = parser.parse_args(arguments)
    try:
        given.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca = load(given.directory, "ca")
        if ca is None:
            ca = authority()
            ca.save(given.directory, "ca")
        server(ca, given.names).save(given.directory, "server")
    except (OSError, ValueError, TypeError) as exc:
        sys.stderr.write(f"fleet.certificates: error: {exc}\n")
        return 1
    return 0


def _builder(name: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + LIFETIME)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that was never open to more than `mode` allows, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
