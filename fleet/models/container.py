"""Containers of the hosts, as last reported."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from fleet.models.columns import Json, UtcDateTime


class ContainerRecord(SQLModel, table=True):
    """One container on one host; a row lives as long as the container."""

    __tablename__ = "container"

    host_id: str = Field(primary_key=True, foreign_key="host.id", max_length=63)
    docker_id: str = Field(primary_key=True, max_length=64)
    name: str = Field(index=True)
    image: str
    state: str = Field(max_length=16)
    status: str = ""
    health: str | None = Field(default=None, max_length=16)
    ports: list[dict[str, Any]] = Field(default_factory=list, sa_type=Json)
    labels: dict[str, str] = Field(default_factory=dict, sa_type=Json)
    created: datetime = Field(sa_type=UtcDateTime)
    started: datetime | None = Field(default=None, sa_type=UtcDateTime)
