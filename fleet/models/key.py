"""The fleet's signing keys, the public halves; the private ones lie in files of the control plane."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.models.columns import UtcDateTime


class FleetKey(SQLModel, table=True):
    __tablename__ = "fleet_key"

    #: 1, 2, 3 …: the highest that is not retired signs
    number: int = Field(primary_key=True)
    #: Ed25519, as text
    public: str = Field(max_length=64, unique=True)
    created_at: datetime = Field(sa_type=UtcDateTime)
    #: since then nobody believes it any more
    retired_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
