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
    #: public keys that the host had before, the newest first; messages may have been signed for them
    former_keys: tuple[str, ...] = ()
    #: the next key and the next password of its broker user, until the fleet has taken them
    offered_key: SecretStr | None = None
    offered_password: SecretStr | None = None

    @field_serializer("offered_key", "offered_password", when_used="json")
    def _reveal_offered(self, value: SecretStr | None) -> str | None:
        return None if value is None else value.get_secret_value()


class PrincipalCredential(_Credential):
    """What a principal pushes by; made by `fleet principal create`, and handed over as a file."""

    name: str
