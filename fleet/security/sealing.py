"""Sealing: texts that only one reader can open, as compact JWE (RFC 7516): ECDH-ES over X25519, AES-256-GCM.

The reader's key follows from a seed, so whoever has the fleet's signing key can open what joining hosts send, and no
further key has to be kept. Sealing says nothing about who sealed: what must come from somebody is signed inside.
"""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from fleet.security.keys import KeyPair, decode, encode

_ALGORITHMS = ["ECDH-ES", "A256GCM"]
_HEADER = {"alg": "ECDH-ES", "enc": "A256GCM"}


class Opener:
    """The reader's half. `public` is what senders seal to."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self.public = encode(private.public_key().public_bytes_raw())
        self._key = OKPKey.import_key(
            {"kty": "OKP", "crv": "X25519", "x": self.public, "d": encode(private.private_bytes_raw())}
        )

    @classmethod
    def generate(cls) -> "Opener":
        return cls(X25519PrivateKey.generate())

    @classmethod
    def of(cls, key: KeyPair, *, purpose: str) -> "Opener":
        """Return the opener that follows from a signing key, by HKDF (RFC 5869): the same for everybody who has it."""
        return cls.following(key.seed(), purpose=purpose)

    @classmethod
    def following(cls, secret: bytes, *, purpose: str) -> "Opener":
        """Return the opener that follows from a secret of 32 random bytes or more, by HKDF (RFC 5869)."""
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)
        return cls(X25519PrivateKey.from_private_bytes(derived))

    def open(self, sealed: str) -> bytes:
        """Return what was sealed; raise ValueError for anything that was not sealed to this reader."""
        try:
            found = jwe.decrypt_compact(sealed, self._key, algorithms=_ALGORITHMS)
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            raise ValueError("not sealed to this reader") from exc
        if found.protected.get("alg") != "ECDH-ES" or found.plaintext is None:
            raise ValueError("not sealed as Fleet seals")
        return found.plaintext


def require_key(public: str) -> None:
    """Raise ValueError for something that nothing can be sealed to: no key, or one whose secret everybody knows."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(decode(public)))
    except ValueError as exc:
        raise ValueError("not an X25519 key") from exc


def seal(data: bytes, public: str) -> str:
    """Seal bytes to the reader with that public key; raise ValueError as `require_key` does."""
    require_key(public)
    key = OKPKey.import_key({"kty": "OKP", "crv": "X25519", "x": public})
    # a header of its own: joserfc writes the ephemeral key into it, and another thread's would end up in this text
    return jwe.encrypt_compact(dict(_HEADER), data, key, algorithms=_ALGORITHMS)
