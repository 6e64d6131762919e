"""Principals: whoever pushes, a person or a program."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.models.columns import Json, UtcDateTime


class Principal(SQLModel, table=True):
    __tablename__ = "principal"

    id: str = Field(primary_key=True, max_length=63)
    #: one of `security.identity.Level`
    level: str = Field(max_length=16)
    #: labels that a host must have; empty for every host
    selectors: dict[str, str] = Field(default_factory=dict, sa_type=Json)
    #: risks of others' runs that it may approve
    approves: list[str] = Field(default_factory=list, sa_type=Json, sa_column_kwargs={"server_default": "[]"})
    #: Ed25519 public keys that it signs by, the newest last: two while it changes over
    keys: list[str] = Field(default_factory=list, sa_type=Json)
    #: SHA-256 of the passwords of its broker user, hexadecimal, the newest last
    broker_hashes: list[str] = Field(default_factory=list, sa_type=Json)
    #: counts its credentials; of which the lowest that still counts is `least_serial`
    serial: int = 1
    least_serial: int = 1
    #: the newest credential (`fleet.security.identity`)
    credential: str
    expires_at: datetime = Field(sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str
    #: until when a former key and credential count beside the newest; None where there is none
    overlap_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
