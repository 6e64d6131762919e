"""Enrollment tokens as text: what an admin hands to a host, and what the host needs to begin with.

    fleet.<public id>.<secret>.<broker's address>

The public id names the token in lists and keys; the secret has 256 random bits and is kept by the control plane as a
hash only; the address is base64url, so that the token alone is enough.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass

from fleet import errors

_FORM = re.compile(r"fleet\.(?P<id>[0-9a-f]{16})\.(?P<secret>[A-Za-z0-9_-]{43})\.(?P<broker>[A-Za-z0-9_-]+)")


@dataclass(frozen=True)
class Token:
    id: str
    secret: str
    broker_url: str

    def __repr__(self) -> str:
        return f"Token(id={self.id!r})"

    def text(self) -> str:
        """Return the token as it is handed over."""
        broker = base64.urlsafe_b64encode(self.broker_url.encode()).decode().rstrip("=")
        return f"fleet.{self.id}.{self.secret}.{broker}"


def new(*, broker_url: str) -> Token:
    return Token(secrets.token_hex(8), secrets.token_urlsafe(32), broker_url)


def parse(text: str) -> Token:
    """Read a token; raises `errors.InvalidValue`, which does not repeat it."""
    match = _FORM.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError("form")
        encoded = match["broker"]
        broker_url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        if not broker_url.startswith(("redis://", "rediss://")):
            raise ValueError("broker")
    except (ValueError, binascii.Error) as exc:
        raise errors.InvalidValue(
            field="token",
            value=f"{text.strip()[:12]}…",
            problem="is not an enrollment token",
            remedy="copy it whole, as `fleet token create` printed it: fleet.….….…",
        ) from exc
    return Token(match["id"], match["secret"], broker_url)


def hash_secret(secret: str) -> str:
    """Return what is stored of a secret. 256 random bits need no slow hash: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()
