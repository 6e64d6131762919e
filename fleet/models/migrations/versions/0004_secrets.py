"""Secrets of containers."""

import sqlalchemy as sa
from alembic import op

from fleet.models.columns import Json

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "secret",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("sealed", sa.String, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("selectors", Json, nullable=False),
        sa.Column("principals", Json, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("secret")
