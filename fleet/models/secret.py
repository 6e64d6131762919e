"""Secrets: values that containers get as files."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.models.columns import Json, UtcDateTime


class Secret(SQLModel, table=True):
    __tablename__ = "secret"

    id: str = Field(primary_key=True, max_length=63)
    #: JWE, for whoever holds the fleet's key `key`; never the value itself
    sealed: str
    #: public key of the fleet that opens it
    key: str = Field(max_length=64)
    #: of the value, in bytes
    size: int
    #: labels that a host must have; empty for every host
    selectors: dict[str, str] = Field(default_factory=dict, sa_type=Json)
    #: principals that may have it put into containers; empty for all that may make some
    principals: list[str] = Field(default_factory=list, sa_type=Json)
    #: counts its values
    version: int = 1
    created_at: datetime = Field(sa_type=UtcDateTime)
    created_by: str
