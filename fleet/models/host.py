"""Hosts: what is known of each for good. Whether one is alive now is the registry's to say, see `fleet.presence`."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Field, SQLModel

from fleet.models.columns import Json, UtcDateTime


class Membership(StrEnum):
    """Whether a host belongs to the fleet."""

    #: enrolled; its reports count and it may be pushed to
    ACCEPTED = "accepted"
    #: put out; its reports are not taken in
    REVOKED = "revoked"


class Host(SQLModel, table=True):
    __tablename__ = "host"

    id: str = Field(primary_key=True, max_length=63)
    membership: str = Field(default=Membership.ACCEPTED, max_length=16)
    #: whether it is to take new work, as somebody decided; one of `contracts.hosts.Availability`
    availability: str = Field(default="active", max_length=16, sa_column_kwargs={"server_default": "active"})
    #: when that was decided, which the host is told; and when what still runs on a draining host is cancelled
    availability_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    drain_deadline: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: Ed25519 public keys that the host signs by, the newest last: two while it changes over
    keys: list[str] = Field(default_factory=list, sa_type=Json, sa_column_kwargs={"server_default": "[]"})
    #: SHA-256 of the passwords of its broker user, hexadecimal, the newest last
    broker_hashes: list[str] = Field(default_factory=list, sa_type=Json, sa_column_kwargs={"server_default": "[]"})
    #: who it is by the fleet's word (`fleet.security.identity`); None where it has to be issued anew
    credential: str | None = Field(default=None)
    #: why somebody should look into it; None while there is no reason
    suspect: str | None = Field(default=None, max_length=200)
    #: identifies the journal file of its newest session
    journal: str | None = Field(default=None, max_length=36)
    #: by a token or an admin, never by the host itself
    labels: dict[str, str] = Field(default_factory=dict, sa_type=Json)
    #: the host's own words: `contracts.hosts.Facts` as JSON, empty before the first registration
    facts: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    enrolled_at: datetime = Field(sa_type=UtcDateTime)
    #: id of the request that enrolled it, so that the same request again is recognised
    enrolled_by: str | None = Field(default=None, max_length=36)
    #: public id of the token that it came by
    token_id: str | None = Field(default=None, max_length=32)
    registered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: of the last heartbeat that the control plane saw
    last_seen_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: set by a clean stop, cleared by the next registration
    signed_off_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    #: newest complete inventory; None while none has come
    inventory_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
