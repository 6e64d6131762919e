"""Enrollment tokens; of the secret only a hash is kept."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.models.columns import Json, UtcDateTime


class EnrollmentToken(SQLModel, table=True):
    __tablename__ = "enrollment_token"

    id: str = Field(primary_key=True, max_length=32)
    #: SHA-256 of the secret part, hexadecimal
    secret_hash: str = Field(max_length=64)
    #: SHA-256 of the password of its broker user, hexadecimal; None of one that was made before there were such users
    broker_hash: str | None = Field(default=None, max_length=64)
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str
    expires_at: datetime = Field(sa_type=UtcDateTime)
    uses_left: int
    #: the only host id it may enroll; None for any
    host_id: str | None = Field(default=None, max_length=63)
    labels: dict[str, str] = Field(default_factory=dict, sa_type=Json)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
