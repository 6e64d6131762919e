"""Bearer tokens: by which programs speak to the REST API in a principal's name."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.models.columns import UtcDateTime


class BearerToken(SQLModel, table=True):
    __tablename__ = "bearer_token"

    #: public id, a part of the token's text
    id: str = Field(primary_key=True, max_length=16)
    principal: str = Field(index=True, max_length=63)
    #: one of `fleet.bearer.Scope`
    scope: str = Field(max_length=16)
    description: str = ""
    #: SHA-256 of the secret, hexadecimal
    secret_hash: str = Field(max_length=64)
    #: the principal's key and its login at the broker, sealed by a key that follows from the secret (compact JWE)
    sealed: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str = Field(max_length=63)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: to the minute
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
