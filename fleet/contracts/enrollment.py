"""What a joining host and the control plane say to each other, and the credential that comes of it."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer


class EnrollmentRequest(BaseModel):
    """One item of `fleet:enroll:requests`: anybody with a token can write there, so every field has its bounds.

    The host's name is taken as it is: one that cannot be is refused with an answer, like a wrong secret.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1
    #: random; the same request put again has the same id, and gets the same answer
    request_id: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    token_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    secret: SecretStr = Field(max_length=64)
    host: str
    version: str = Field(max_length=64)
    #: unix seconds by the broker's clock; nobody waits for the answer after it, so nothing is used up for it
    not_after: float = Field(allow_inf_nan=False)

    @field_serializer("secret", when_used="json")
    def _reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class EnrollmentAnswer(BaseModel):
    """One item of `fleet:enroll:reply:<token id>:<request id>`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1
    request_id: str
    outcome: Literal["accepted", "refused"]
    #: a sentence for people where it was refused
    reason: str = ""
    host: str
    labels: dict[str, str] = {}


class Credential(BaseModel):
    """What a host keeps after enrollment: who it is, and how it reaches the broker. Mode 0600 on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    host: str
    broker_url: SecretStr
    #: as of the enrollment; the control plane's record is what counts
    labels: dict[str, str] = {}
    enrolled_at: datetime

    @field_serializer("broker_url", when_used="json")
    def _reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()
