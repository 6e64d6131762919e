"""Identities: who somebody is by the fleet's word, as a credential that the fleet has signed.

A credential is a compact JWS (RFC 7515) by the fleet's Ed25519 key over JWT claims: `sub` names the host (`h:edge-7`)
or the principal (`p:alice`), `cnf` holds its public key (RFC 7800). It is no secret: whoever shows it proves with a
signature that the key is theirs. Any other algorithm than Ed25519, `none` first of all, is refused.
"""

from enum import StrEnum
from typing import Annotated, Any, Self

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet import errors, names
from fleet.contracts import Risk
from fleet.security.keys import PUBLIC_KEY, KeyPair, encode

_ALGORITHM = "Ed25519"
#: Version of the claims.
_VERSION = 1


class Level(StrEnum):
    """How far a principal is trusted; each includes what those before it may do."""

    #: looks
    STUDENT = "student"
    #: looks; more only where somebody else approves
    INTERN = "intern"
    #: changes what can be changed back
    SUPERVISED = "supervised"
    #: everything, also what destroys, and programs of its choice
    AUTONOMOUS = "autonomous"

    def may(self, risk: Risk) -> bool:
        """Say whether a push of this risk is carried out without anybody else's word."""
        return risk in _ALLOWED[self]


_LOOKS = frozenset({Risk.READS})
_ALLOWED = {
    Level.STUDENT: _LOOKS,
    Level.INTERN: _LOOKS,
    Level.SUPERVISED: _LOOKS | {Risk.CHANGES},
    Level.AUTONOMOUS: frozenset(Risk),
}


class _Identity(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    #: Ed25519 public key of whoever this is
    key: str = Field(pattern=PUBLIC_KEY)
    #: unix seconds by the broker's clock
    issued_at: float = Field(allow_inf_nan=False)


class HostIdentity(_Identity):
    """A host, as the fleet knows it."""

    host: str
    #: by a token or an admin; what selectors and policy go by
    labels: dict[str, str] = {}
    #: unix seconds; whatever was meant for a host of this name before is not meant for this one
    enrolled_at: float = Field(allow_inf_nan=False)


class PrincipalIdentity(_Identity):
    """A principal, as the fleet knows it."""

    name: str
    level: Level = Field(strict=False)
    #: labels that a host must have to be pushed to; empty for every host
    selectors: dict[str, str] = {}
    #: counts the credentials of this name; an earlier one than the fleet says does not count any more
    serial: int = Field(ge=1)
    #: unix seconds by the broker's clock
    expires_at: float = Field(allow_inf_nan=False)
    #: risks of others' runs that this principal may approve
    approves: frozenset[Annotated[Risk, Field(strict=False)]] = Field(frozenset(), strict=False)

    def may_address(self, host: HostIdentity) -> bool:
        """Say whether the selectors let this principal push to that host."""
        return self.selectors.items() <= host.labels.items()


class Claims(BaseModel):
    """What a credential says, in the words of JWT."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: int = Field(_VERSION, ge=_VERSION, le=_VERSION)
    sub: str
    iat: float
    exp: float | None = None
    cnf: dict[str, dict[str, str]]
    labels: dict[str, str] | None = None
    enrolled_at: float | None = None
    level: str | None = None
    selectors: dict[str, str] | None = None
    serial: int | None = None
    approves: list[str] | None = None

    @classmethod
    def of(cls, identity: HostIdentity | PrincipalIdentity) -> Self:
        shared: dict[str, Any] = {
            "iat": identity.issued_at,
            "cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": identity.key}},
        }
        if isinstance(identity, HostIdentity):
            return cls(sub=f"h:{identity.host}", labels=identity.labels, enrolled_at=identity.enrolled_at, **shared)
        return cls(
            sub=f"p:{identity.name}",
            exp=identity.expires_at,
            level=identity.level.value,
            selectors=identity.selectors,
            serial=identity.serial,
            approves=sorted(identity.approves) or None,
            **shared,
        )

    def identity(self) -> HostIdentity | PrincipalIdentity:
        """Return who this is; raise ValueError for claims that fit neither."""
        kind, _, name = self.sub.partition(":")
        said: dict[str, Any] = {"key": self.cnf["jwk"]["x"], "issued_at": self.iat}
        if kind == "h":
            said |= {"host": names.host_id(name), "labels": self.labels or {}, "enrolled_at": self.enrolled_at}
            return HostIdentity.model_validate(said)
        if kind == "p":
            said |= {"name": names.principal(name), "level": self.level, "selectors": self.selectors or {}}
            said |= {"serial": self.serial, "expires_at": self.exp, "approves": self.approves or ()}
            return PrincipalIdentity.model_validate(said)
        raise ValueError(f"a credential of neither host nor principal: {self.sub!r}")


def issue(identity: HostIdentity | PrincipalIdentity, fleet_key: KeyPair) -> str:
    """Return a credential: the fleet's word, under that key, that this is so."""
    claims = Claims.of(identity).model_dump(exclude_none=True)
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": fleet_key.public, "d": encode(fleet_key.seed())})
    header = {"alg": _ALGORITHM, "typ": "JWT", "kid": fleet_key.public}
    return jwt.encode(header, claims, key, algorithms=[_ALGORITHM])


def read(credential: str, fleet_key: str) -> HostIdentity | PrincipalIdentity:
    """Return who a credential is about, if that key of the fleet signed it; raise `errors.NotTrusted` otherwise.

    Whether it has expired or was replaced is for those to judge who know the time and the fleet's newest word.
    """
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": fleet_key})
    try:
        token = jwt.decode(credential, key, algorithms=[_ALGORITHM])
        return Claims.model_validate(token.claims).identity()
    except (JoseError, ValidationError, ValueError, KeyError, TypeError, RecursionError, errors.InvalidValue) as exc:
        raise errors.NotTrusted("a credential that the fleet has not signed") from exc
