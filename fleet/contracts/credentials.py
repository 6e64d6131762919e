"""Credentials as they lie on disk, mode 0600: who somebody is, and how they reach the broker."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr, field_serializer


class _Credential(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[2] = 2
    #: with a user and a password of its own
    broker_url: SecretStr
    #: PEM of the authority that the broker's certificate is from; None for the system's
    broker_ca: str | None = None
    #: Ed25519, made here; it never leaves this machine
    private_key: SecretStr
    #: who this is by the fleet's word, a compact JWS
    credential: str
    #: the fleet's word about itself as last heard, signed: which keys are its own
    trust: str

    @field_serializer("broker_url", "private_key", when_used="json")
    def _reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class HostCredential(_Credential):
    """What a host keeps after enrollment."""

    host: str
    #: as of the enrollment; the credential's are what counts
    labels: dict[str, str] = {}
    enrolled_at: datetime


class PrincipalCredential(_Credential):
    """What a principal pushes by; made by `fleet principal create`, and handed over as a file."""

    name: str
