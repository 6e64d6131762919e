"""Authorities: the certificates of those who may vouch for a broker, as a file, as text, and as bytes for a token.

Where one is given, it alone counts, and the system's do not. It is the broker's own CA that belongs here, not a bundle
of everybody's: it travels in every enrollment token.
"""

import re
import ssl
from pathlib import Path

from fleet import errors

#: A CA takes 0.4 to 1.5 kB, and two stand side by side while one replaces the other; more is a bundle. In bytes of DER.
LARGEST = 8192
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read(path: Path, *, field: str) -> str:
    """Return the certificates in a PEM file, and nothing else that is in it.

    Raises `errors.SettingsInvalid` for a file that is missing, is not PEM, or has anything but CAs in it.
    """
    remedy = "name the file with the certificate of the broker's CA (PEM)"
    try:
        return checked(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise errors.SettingsInvalid(f"{field}: {str(path)!r} cannot be read ({exc.strerror})", remedy=remedy) from exc
    except UnicodeDecodeError as exc:
        raise errors.SettingsInvalid(f"{field}: {str(path)!r} is no text, so no PEM file", remedy=remedy) from exc
    except ValueError as exc:
        raise errors.SettingsInvalid(f"{field}: {str(path)!r} {exc}", remedy=remedy) from exc


def checked(pem: str) -> str:
    """Return the certificates in a text; raises `ValueError`, whose text is what is wrong with it."""
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise ValueError("has no certificate in it")
    return _as_pem("\n".join(blocks))


def packed(pem: str) -> bytes:
    """Return certificates that were checked in DER, one after the other."""
    return b"".join(ssl.PEM_cert_to_DER_cert(block) for block in _BLOCK.findall(pem))


def unpacked(der: bytes) -> str:
    """Return the certificates as PEM; raises `ValueError` as `checked` does."""
    return _as_pem(der)


def _as_pem(certificates: str | bytes) -> str:
    """Let OpenSSL read them: what it takes here, it will take for a connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=certificates)
    except (ssl.SSLError, ValueError) as exc:
        raise ValueError("has a certificate in it that cannot be read") from exc
    found = context.get_ca_certs(binary_form=True)
    if len(found) < context.cert_store_stats()["x509"]:
        raise ValueError("has a certificate in it that is no CA's: one that may sign others")
    if sum(map(len, found)) > LARGEST:
        raise ValueError(f"has {len(found)} certificates in it, more than travel in a token")
    return "".join(ssl.DER_cert_to_PEM_cert(each) for each in found)
