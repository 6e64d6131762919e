"""Keys: Ed25519 key pairs (RFC 8032), and signatures over bytes that say what they are for.

A key is written as text, base64url without padding: 43 characters, the public and the private one alike. A signature
covers its purpose as well, so none can be taken for another kind: a signed result is never a signed message.
"""

import base64
import binascii
import hashlib
from enum import StrEnum
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import SecretStr

from fleet import errors

#: Length of a key as text.
KEY_CHARACTERS = 43
#: Pattern of a public key, for models that carry one.
PUBLIC_KEY = rf"^[A-Za-z0-9_-]{{{KEY_CHARACTERS}}}$"


class Purpose(StrEnum):
    """What a signature is for."""

    #: a task message, for one host
    MESSAGE = "fleet message 1"
    #: a run's result
    RESULT = "fleet result 1"
    #: an entry of what a run says while it runs
    OUTPUT = "fleet output 1"
    #: reports of one sender
    REPORTS = "fleet reports 1"
    #: a control message, for one host
    CONTROL = "fleet control 1"
    #: which keys the fleet has, and whose credentials count
    TRUST = "fleet trust 1"
    #: what principals may do: the fleet's policy
    POLICY = "fleet policy 1"
    #: by which key an enrollment request is to be sealed
    ENROLLMENT = "fleet enrollment 1"


class KeyPair:
    """A private key with its public one. Its representation shows the public one alone."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = encode(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "KeyPair":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, text: str) -> "KeyPair":
        """Read a private key; raise `errors.InvalidValue`, which does not repeat it."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(decode(text)))
        except ValueError as exc:
            raise errors.InvalidValue(
                field="private key", value="…", problem="is no Ed25519 key", remedy="copy its file whole"
            ) from exc

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"

    def secret(self) -> SecretStr:
        """Return the private key as text, to be kept in a file of mode 0600 and nowhere else."""
        return SecretStr(encode(self._private.private_bytes_raw()))

    def seed(self) -> bytes:
        """Return the 32 private bytes, for keys that are derived from this one."""
        return self._private.private_bytes_raw()

    def sign(self, purpose: Purpose, data: bytes) -> str:
        """Return a signature over purpose and data, as text."""
        return encode(self._private.sign(_covered(purpose, data)))


def verify(public: str, purpose: Purpose, data: bytes, signature: str) -> bool:
    """Say whether the holder of that public key signed these bytes for that purpose; never fails on foreign text."""
    try:
        _public(public).verify(decode(signature), _covered(purpose, data))
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: str) -> str:
    """Return what a token carries of a public key: its SHA-256 (RFC 6234), as text of 43 characters."""
    return encode(hashlib.sha256(decode(public)).digest())


def encode(data: bytes) -> str:
    """Return bytes as base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    """Return the bytes of base64url without padding; raise ValueError for anything else, also another spelling."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError("not base64url") from exc
    if encode(data) != text:  # one value has one spelling, so that nothing can be told apart that is the same
        raise ValueError("not the shortest form")
    return data


@lru_cache(maxsize=4096)
def _public(text: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(decode(text))


def _covered(purpose: Purpose, data: bytes) -> bytes:
    return purpose.encode() + b"\0" + data
