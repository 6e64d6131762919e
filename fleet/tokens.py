"""Enrollment tokens as text: what an admin hands to a host, and what the host needs to begin with.

    fleet.<public id>.<secret>.<broker's address>[.<broker's CA>]

The public id names the token in lists and keys; the secret has 256 random bits and is kept by the control plane as a
hash only; the address is base64url, and so are the certificates (DER) of a CA that is not one of the system's: the
token alone is enough.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass

from fleet import authority, errors

_FORM = re.compile(
    r"fleet\.(?P<id>[0-9a-f]{16})\.(?P<secret>[A-Za-z0-9_-]{43})\.(?P<broker>[A-Za-z0-9_-]+)(\.(?P<ca>[A-Za-z0-9_-]+))?"
)


@dataclass(frozen=True)
class Token:
    id: str
    secret: str
    broker_url: str
    #: PEM; None: the system's CAs
    broker_ca: str | None = None

    def __repr__(self) -> str:
        return f"Token(id={self.id!r})"

    def text(self) -> str:
        """Return the token as it is handed over."""
        parts = ["fleet", self.id, self.secret, _encoded(self.broker_url.encode())]
        if self.broker_ca is not None:
            parts.append(_encoded(authority.packed(self.broker_ca)))
        return ".".join(parts)


def new(*, broker_url: str, broker_ca: str | None = None) -> Token:
    return Token(secrets.token_hex(8), secrets.token_urlsafe(32), broker_url, broker_ca)


def parse(text: str) -> Token:
    """Read a token; raises `errors.InvalidValue`, which does not repeat it."""
    match = _FORM.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError("form")
        broker_url = _decoded(match["broker"]).decode()
        broker_ca = authority.unpacked(_decoded(match["ca"])) if match["ca"] else None
        if not broker_url.startswith(("redis://", "rediss://")):
            raise ValueError("broker")
    except (ValueError, binascii.Error) as exc:
        raise errors.InvalidValue(
            field="token",
            value=f"{text.strip()[:12]}…",
            problem="is not an enrollment token",
            remedy="copy it whole, as `fleet token create` printed it: fleet.….….…",
        ) from exc
    return Token(match["id"], match["secret"], broker_url, broker_ca)


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def hash_secret(secret: str) -> str:
    """Return what is stored of a secret. 256 random bits need no slow hash: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()
