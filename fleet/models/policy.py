"""The fleet's policy, one row for each version."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.models.columns import UtcDateTime


class PolicyVersion(SQLModel, table=True):
    __tablename__ = "policy_version"

    #: 1, 2, 3 …; the newest counts
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    #: TOML, as the admin wrote it
    text: str
    set_at: datetime = Field(sa_type=UtcDateTime)
    set_by: str
