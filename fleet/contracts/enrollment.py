"""What a joining host and the control plane say to each other.

The host reads under `fleet:trust` who the control plane is, recognises it by the hash in its token, and seals what it
asks to it, the secret included. The answer is signed, and sealed to the host.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer

_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_TOKEN_ID = r"^[0-9a-f]{16}$"  # noqa: S105 - a pattern
_KEY = r"^[A-Za-z0-9_-]{43}$"


class SealedRequest(BaseModel):
    """One item of `fleet:enroll:requests`: anybody with a token can write there, so every field has its bounds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 2
    #: key of the fleet that it is sealed for
    to: str = Field(pattern=_KEY)
    #: an `EnrollmentRequest`, as compact JWE
    sealed: str = Field(max_length=8192)


class EnrollmentRequest(BaseModel):
    """What a host asks. Its name is taken as it is: one that cannot be is refused with an answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 2
    #: random; the same request put again has the same id, and gets the same answer
    request_id: str = Field(pattern=_UUID)
    token_id: str = Field(pattern=_TOKEN_ID)
    secret: SecretStr = Field(max_length=64)
    host: str
    version: str = Field(max_length=64)
    #: unix seconds by the broker's clock; nobody waits for the answer after it, so nothing is used up for it
    not_after: float = Field(allow_inf_nan=False)
    #: Ed25519 public key of the host
    key: str = Field(pattern=_KEY)
    #: X25519 public key that the answer is sealed to
    answer_to: str = Field(pattern=_KEY)
    #: SHA-256 of the password that the host has made for its broker user, hexadecimal
    broker_hash: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_serializer("secret", when_used="json")
    def _reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class SignedRequest(BaseModel):
    """What is inside a sealed request: the request, signed by the key in it, so that nobody enrolls another's key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: an `EnrollmentRequest` as it was signed
    text: str
    signature: str = Field(max_length=128)


class EnrollmentAnswer(BaseModel):
    """What the control plane answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 2
    request_id: str
    outcome: Literal["accepted", "refused"]
    #: a sentence for people where it was refused
    reason: str = ""
    host: str
    labels: dict[str, str] = {}
    #: the host's credential; empty where it was refused
    credential: str = ""
    #: the fleet's word about itself, see `fleet.security.trust`
    trust: str = ""


class SignedAnswer(BaseModel):
    """One item of `fleet:enroll:reply:<token id>:<request id>`, once opened: an answer, signed by the fleet's key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: an `EnrollmentAnswer` as it was signed
    text: str
    signature: str = Field(max_length=128)
