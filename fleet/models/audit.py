"""The audit: append-only; triggers of the database refuse to change or delete a row."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from fleet.models.columns import Big, Json, UtcDateTime


class AuditEvent(SQLModel, table=True):
    """Who did what on what, with which outcome. `hash` covers `previous_hash` and every other field."""

    __tablename__ = "audit_event"

    #: 1, 2, 3 … without gaps, given by `fleet.audit`
    id: int = Field(primary_key=True, sa_type=Big, sa_column_kwargs={"autoincrement": False})
    #: when the control plane recorded it
    recorded_at: datetime = Field(index=True, sa_type=UtcDateTime)
    #: when it happened, as its sender says
    occurred_at: datetime = Field(sa_type=UtcDateTime)
    #: catalogued `noun.past_participle`, such as "run.succeeded", "token.created"
    event: str = Field(index=True, max_length=64)
    #: `p:<principal>`, a host id, `token:<id>` of a host that is not one yet, or "control"
    actor: str = Field(index=True, max_length=80)
    host_id: str | None = Field(default=None, index=True, max_length=63)
    run_id: str | None = Field(default=None, index=True, max_length=100)
    #: of a report: the sender's epoch and number within it; 0 otherwise
    epoch: int = Field(default=0, sa_type=Big)
    seq: int = Field(default=0, sa_type=Big)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    previous_hash: str = Field(max_length=64)
    hash: str = Field(max_length=64)
