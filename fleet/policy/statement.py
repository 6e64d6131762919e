"""The fleet's policy as the control plane states it: text and version, with a signature by each of the fleet's keys.

Whoever trusts one of the keys believes it. A host goes by the highest version that it has heard of, so an old statement
that somebody sends again changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet import errors
from fleet.policy import fleets
from fleet.policy.fleets import FleetPolicy
from fleet.security.keys import KeyPair, Purpose, decode, encode, verify

#: The largest policy in base64, with a signature by each of the keys that there may be, and room for more.
LARGEST_BYTES = 512 * 1024


class _Said(BaseModel):
    """What is signed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = Field(ge=1)
    #: TOML in base64url: as JSON text in JSON text, what has many quotes in it would be four times as long
    policy: str


class SignedPolicy(BaseModel):
    """The policy as it lies under `fleet:policy` and is sent to hosts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: JSON of version and policy, byte for byte as it was signed
    text: str
    #: public key → signature
    signatures: dict[str, str] = Field(max_length=8)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A policy by the fleet's word."""

    version: int
    #: TOML, as the admin wrote it
    text: str
    policy: FleetPolicy


def state(text: str, version: int, keys: Iterable[KeyPair]) -> str:
    """Return a policy (checked before), signed by all these keys."""
    said = _Said(version=version, policy=encode(text.encode())).model_dump_json()
    signatures = {key.public: key.sign(Purpose.POLICY, said.encode()) for key in keys}
    return SignedPolicy(text=said, signatures=signatures).model_dump_json()


def read(signed: str, trusted: Iterable[str]) -> Stated:
    """Return the policy that one of the trusted keys has signed.

    Raises `errors.NotTrusted` where none has, and `errors.SettingsInvalid` for a policy that this version of Fleet does
    not understand: one half understood would be another policy.
    """
    if len(signed) > LARGEST_BYTES:
        raise errors.NotTrusted("a policy that is too large for one")
    try:
        found = SignedPolicy.model_validate_json(signed)
        text = found.text.encode()
    except (ValidationError, ValueError) as exc:
        raise errors.NotTrusted("a policy that cannot be read") from exc
    if not any(verify(key, Purpose.POLICY, text, found.signatures.get(key, "")) for key in trusted):
        raise errors.NotTrusted("a policy that no key of the fleet has signed")
    try:
        said = _Said.model_validate_json(found.text)
        policy = decode(said.policy).decode()
    except (ValidationError, ValueError) as exc:
        raise errors.SettingsInvalid(
            "the fleet's policy is said in a way that is not known here",
            remedy="bring Fleet up to date on this machine",
        ) from exc
    parsed = fleets.parse(policy, what=f"the fleet's policy, version {said.version}")
    return Stated(version=said.version, text=policy, policy=parsed)
