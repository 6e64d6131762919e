"""What a joining host and the control plane say to each other, and the credential that comes of it."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr, field_serializer


class EnrollmentRequest(BaseModel):
    """One item of `fleet:enroll:requests`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1
    #: ties the answer to this try
    request_id: str
    token_id: str
    secret: str
    host: str
    version: str


class EnrollmentAnswer(BaseModel):
    """One item of `fleet:enroll:reply:<token id>`."""

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
