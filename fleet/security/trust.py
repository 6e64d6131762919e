"""Trust: which keys are the fleet's, and whose credentials count. What hosts, principals and joiners go by.

The control plane says it in a statement that all its keys sign; whoever trusts one of them believes the statement, and
from then on the keys in it. So the fleet's key can be replaced without going to any machine: the next one is announced
by the present one, and the present one is dropped later.
"""

import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet import errors
from fleet.security import identity
from fleet.security.identity import HostIdentity, PrincipalIdentity
from fleet.security.keys import KeyPair, Purpose, fingerprint, verify


class Statement(BaseModel):
    """The fleet's word about itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: grows with every change; an earlier one than is known changes nothing
    version: int = Field(ge=1)
    #: Ed25519 public keys, the one that signs now last
    keys: tuple[str, ...] = Field(min_length=1, max_length=8)
    #: principal → lowest serial of a credential that counts; of others every credential counts until it expires
    principals: dict[str, int] = {}


class SignedStatement(BaseModel):
    """A statement with a signature by each of its keys, as it lies under `fleet:trust` and is sent to hosts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: a `Statement`, byte for byte as it was signed
    text: str
    #: public key → signature
    signatures: dict[str, str]
    #: public key → what enrollment requests are sealed to for its holder
    openers: dict[str, "SealTo"] = {}


class SealTo(BaseModel):
    """An X25519 public key, signed by the key of the fleet that it follows from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    signature: str


def state(statement: Statement, keys: Mapping[KeyPair, str]) -> str:
    """Return the statement, signed by all these keys, as text; each with what is sealed to for its holder."""
    text = statement.model_dump_json()
    signatures = {key.public: key.sign(Purpose.TRUST, text.encode()) for key in keys}
    openers = {
        key.public: SealTo(key=opener, signature=key.sign(Purpose.ENROLLMENT, opener.encode()))
        for key, opener in keys.items()
    }
    return SignedStatement(text=text, signatures=signatures, openers=openers).model_dump_json()


def recognise(signed: str, hashed: str) -> tuple[str, str]:
    """Return the fleet's key whose fingerprint a token carries, and what is sealed to for its holder.

    Raises `errors.NotTrusted` where nobody who wrote this has that key.
    """
    try:
        found = SignedStatement.model_validate_json(signed)
        for public, seal_to in found.openers.items():
            if fingerprint(public) == hashed and verify(
                public, Purpose.ENROLLMENT, seal_to.key.encode(), seal_to.signature
            ):
                return public, seal_to.key
    except ValueError:
        pass
    raise errors.NotTrusted("this is not the control plane that made the token")


class Trust:
    """What one process believes. Thread-safe: the one field is replaced as a whole."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._lock = threading.Lock()

    @classmethod
    def in_keys(cls, keys: Iterable[str]) -> "Trust":
        """Return trust in these public keys, before any statement was heard."""
        return cls(Statement.model_construct(version=0, keys=tuple(keys), principals={}))

    @property
    def keys(self) -> tuple[str, ...]:
        return self._statement.keys

    @property
    def version(self) -> int:
        return self._statement.version

    def statement(self) -> Statement:
        return self._statement

    def learn(self, signed: str) -> bool:
        """Believe a newer statement that a trusted key has signed; return whether there was anything to learn.

        Raises `errors.NotTrusted` where none of its signatures is by a trusted key.
        """
        with self._lock:
            told = read(signed, self.keys)
            if told.version <= self.version:
                return False
            self._statement = told
            return True

    def by_fleet(self, purpose: Purpose, data: bytes, signature: str) -> bool:
        """Say whether a key of the fleet signed this, the newest asked first."""
        return any(verify(key, purpose, data, signature) for key in reversed(self.keys))

    def host(self, credential: str) -> HostIdentity:
        """Return the host of a credential; raise `errors.NotTrusted`."""
        found = _read(credential, self.keys)
        if not isinstance(found, HostIdentity):
            raise errors.NotTrusted("a principal's credential where a host's belongs")
        return found

    def principal(self, credential: str) -> PrincipalIdentity:
        """Return the principal of a credential, whether or not it still counts; raise `errors.NotTrusted`."""
        found = _read(credential, self.keys)
        if not isinstance(found, PrincipalIdentity):
            raise errors.NotTrusted("a host's credential where a principal's belongs")
        return found

    def objection(self, principal: PrincipalIdentity, *, now: float) -> str:
        """Return why a credential does not count at that time (unix seconds); empty where it does."""
        if principal.serial < self._statement.principals.get(principal.name, 0):
            return "revoked"
        return "expired" if now > principal.expires_at else ""


def read(signed: str, trusted: Iterable[str]) -> Statement:
    """Return a statement that one of the trusted keys has signed; raise `errors.NotTrusted` otherwise."""
    try:
        found = SignedStatement.model_validate_json(signed)
        told = Statement.model_validate_json(found.text)
    except (ValidationError, ValueError) as exc:
        raise errors.NotTrusted("a statement of trust that cannot be read") from exc
    for key in trusted:
        if (signature := found.signatures.get(key)) and verify(key, Purpose.TRUST, found.text.encode(), signature):
            return told
    raise errors.NotTrusted("a statement of trust that no key of the fleet has signed")


@lru_cache(maxsize=20_000)
def _read(credential: str, keys: tuple[str, ...]) -> HostIdentity | PrincipalIdentity:
    """Read a credential by any of the keys; remembered, since the same one comes with every message."""
    for key in reversed(keys):
        try:
            return identity.read(credential, key)
        except errors.NotTrusted:
            continue
    raise errors.NotTrusted("a credential that no key of the fleet has signed")
