"""Enrollment tokens as text: what an admin hands to a host, and what the host needs to begin with.

    fleet.<public id>.<secret>.<fingerprint of the fleet's key>.<broker's address>[.<broker's CA>]

The public id names the token in lists and keys; the secret has 256 random bits and is kept by the control plane as a
hash only. By the fingerprint the host recognises the control plane before it says the secret; the address is base64url,
without a password: the token's broker user has one that follows from the secret. The last part are the certificates
(DER, base64url) of a CA that is not one of the system's: the token alone is enough.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass

from fleet import authority, errors
from fleet.security.keys import decode, encode

_FORM = re.compile(
    r"fleet\.(?P<id>[0-9a-f]{16})\.(?P<secret>[A-Za-z0-9_-]{43})\.(?P<fleet>[A-Za-z0-9_-]{43})"
    r"\.(?P<broker>[A-Za-z0-9_-]+)(\.(?P<ca>[A-Za-z0-9_-]+))?"
)


@dataclass(frozen=True)
class Token:
    id: str
    secret: str
    #: `security.keys.fingerprint` of the fleet's key
    fleet: str
    #: without user and password
    broker_url: str
    #: PEM; None: the system's CAs
    broker_ca: str | None = None

    def __repr__(self) -> str:
        return f"Token(id={self.id!r})"

    def text(self) -> str:
        """Return the token as it is handed over."""
        parts = ["fleet", self.id, self.secret, self.fleet, encode(self.broker_url.encode())]
        if self.broker_ca is not None:
            parts.append(encode(authority.packed(self.broker_ca)))
        return ".".join(parts)

    def broker_password(self) -> str:
        """Return the password of the token's broker user; who learns it does not know the secret."""
        return broker_password(self.secret)


def new(*, broker_url: str, fleet: str, broker_ca: str | None = None) -> Token:
    return Token(secrets.token_hex(8), secrets.token_urlsafe(32), fleet, broker_url, broker_ca)


def parse(text: str) -> Token:
    """Read a token; raises `errors.InvalidValue`, which does not repeat it."""
    match = _FORM.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError("form")
        broker_url = decode(match["broker"]).decode()
        broker_ca = authority.unpacked(decode(match["ca"])) if match["ca"] else None
        if not broker_url.startswith(("redis://", "rediss://")):
            raise ValueError("broker")
    except ValueError as exc:
        raise errors.InvalidValue(
            field="token",
            value=f"{text.strip()[:12]}…",
            problem="is not an enrollment token",
            remedy="copy it whole, as `fleet token create` printed it: fleet.….….….…",
        ) from exc
    return Token(match["id"], match["secret"], match["fleet"], broker_url, broker_ca)


def hash_secret(secret: str) -> str:
    """Return what is stored of a secret. 256 random bits need no slow hash: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def broker_password(secret: str) -> str:
    """Return the password of a token's broker user: it follows from the secret, and not the other way round."""
    return hashlib.sha256(b"fleet broker\0" + secret.encode()).hexdigest()
